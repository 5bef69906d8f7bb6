"""Answers as they come, and their consumers."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import antiphon
import pytest

from conftest import GOES_ON
from generators import Stalls

HELP = "Hello, I need help with my account"


def test_a_stream_is_an_analysis_chunks_and_a_reply(engine: antiphon.Engine) -> None:
    events = list(engine.stream(HELP, cache="bypass"))
    assert [event.type for event in events] == ["analysis"] + ["chunk"] * (len(events) - 2) + ["done"]
    analysis, *chunks, done = events
    assert analysis.analysis is not None and analysis.analysis.intent.label == "help_request"
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert done.reply is not None and done.reply.response == "".join(event.content for event in events)
    assert (analysis.content, analysis.index, analysis.reply, done.analysis, done.logprobs) == ("", None, None, None, None)


def test_chunks_have_the_probabilities_that_were_asked_for(engine: antiphon.Engine) -> None:
    chunk = next(event for event in engine.stream("Hello", logprobs=2, max_tokens=2) if event.type == "chunk")
    assert chunk.logprobs is not None
    token = chunk.logprobs[0]
    assert token.token == chunk.content and token.logprob <= 0 and len(token.top) == 2


def test_a_stream_that_ended_stays_at_its_end(engine: antiphon.Engine) -> None:
    stream = engine.stream("Hello", max_tokens=2)
    list(stream)
    assert list(stream) == []
    stream.cancel()
    assert list(stream) == []
    stream.close()
    stream.close()
    with pytest.raises(antiphon.ClosedError):
        next(stream)


def test_leaving_a_stream_ends_its_work() -> None:
    """The one place of the engine is free again."""
    with antiphon.Engine(generators=[Stalls()], batcher={"max_concurrent": 1}) as engine:
        with engine.stream("Hello", model="stalls") as stream:
            next(stream)
        assert engine.process("Hello", max_tokens=2).response
        stream = engine.stream("Hello", model="stalls")
        next(stream)
        del stream
        assert engine.process("Hello there", max_tokens=2).response


def test_a_canceller_ends_a_stream_that_another_thread_waits_for() -> None:
    with antiphon.Engine(generators=[Stalls()]) as engine:
        stream = engine.stream("Hello", model="stalls")
        assert [next(stream).type, next(stream).content] == ["analysis", "one "]
        ended: list[BaseException] = []

        def wait() -> None:
            try:
                next(stream)
            except antiphon.AntiphonError as error:
                ended.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        stream.cancel()
        thread.join(60)
        assert isinstance(ended[0], antiphon.RequestCancelledError)


def test_closing_a_stream_ends_the_wait_of_another_thread() -> None:
    with antiphon.Engine(generators=[Stalls()]) as engine:
        stream = engine.stream("Hello", model="stalls")
        [next(stream), next(stream)]
        thread = threading.Thread(target=lambda: pytest.raises(antiphon.AntiphonError, next, stream))
        thread.start()
        stream.close()
        thread.join(60)
        assert not thread.is_alive()


def test_a_consumer_hears_every_event_and_may_stop(engine: antiphon.Engine) -> None:
    heard: list[antiphon.Event] = []
    reply = engine.process(HELP, on_event=heard.append)
    assert [event.type for event in heard][-1] == "done" and heard[-1].reply == reply

    heard.clear()

    def stops(event: antiphon.Event) -> bool:
        heard.append(event)
        return len(heard) == 3

    reply = engine.process("Stop here " + HELP, on_event=stops, **GOES_ON)
    assert len(heard) == 3, "who has stopped is called no more"
    assert reply.finish_reason == "cancelled"
    assert reply.response.startswith("".join(event.content for event in heard))


class Told(BaseException):
    """What no library may catch."""


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3), Told()], ids=repr)
def test_faults_61_what_a_callback_raises_comes_out_as_it_is(raised: BaseException) -> None:
    with antiphon.Engine(generators=[Stalls()], batcher={"max_concurrent": 1}) as engine:
        heard = []

        def callback(event: antiphon.Event) -> None:
            heard.append(event)
            if event.type == "chunk":
                raise raised

        for call in (
            lambda: engine.process("Hello", model="stalls", on_event=callback),
            lambda: engine.generate([{"role": "user", "content": "Hello"}], model="stalls", on_event=callback),
        ):
            heard.clear()
            with pytest.raises(type(raised)) as caught:
                call()
            assert caught.value is raised
            assert [event.type for event in heard][-1] == "chunk", "it is not called again"
            # Its work has stopped: a model that never ends would keep the one place.
            assert engine.process("Hello", max_tokens=2, cache="bypass").response


def test_faults_65_a_cycle_through_a_stream_is_collected() -> None:
    class Reader:
        def __init__(self, engine: antiphon.Engine) -> None:
            self.stream = engine.stream(HELP)
            self.read = self.hear

        def hear(self, event: antiphon.Event) -> None:
            pass

    with antiphon.Engine(threads=1) as engine:
        readers = [weakref.ref(Reader(engine)) for _ in range(20)]
        gc.collect()
        assert [reader() for reader in readers] == [None] * 20


def test_faults_65_a_cycle_through_an_engine_and_its_plugins_is_collected() -> None:
    class Plugin(antiphon.Stage, antiphon.Observer):
        name = "plugin"
        engine: Any = None

        def before(self, request: dict[str, Any], /) -> None:
            pass

        def after(self, reply: antiphon.Reply, /) -> None:
            pass

        def event(self, name: str, fields: dict[str, Any], /) -> None:
            pass

        def generate(self, request: dict[str, Any], /) -> Any:
            yield "mine"

        def get(self, key: bytes, /) -> None:
            pass

        def put(self, key: bytes, value: bytes, ttl: float, /) -> None:
            pass

        def remove(self, key: bytes, /) -> None:
            pass

    before = threading.active_count()
    plugin = Plugin()
    plugin.engine = antiphon.Engine(
        threads=1, shared_tier=plugin, generators=[plugin], stages=[plugin], observers=[plugin]
    )
    assert plugin.engine.process("Hello", model="plugin").response == "mine"
    gone = weakref.ref(plugin), weakref.ref(plugin.engine)
    del plugin
    # A thread that has just told something lets go of it a moment later.
    for _ in range(600):
        gc.collect()
        if all(one() is None for one in gone) and threading.active_count() <= before:
            break
        threading.Event().wait(0.05)
    assert [one() for one in gone] == [None, None]
    assert threading.active_count() <= before


def test_faults_65_a_stream_is_collected_by_another_thread(engine: antiphon.Engine) -> None:
    streams = [engine.stream(HELP, cache="bypass") for _ in range(4)]
    gone = [weakref.ref(stream) for stream in streams]
    thread = threading.Thread(target=streams.clear)
    thread.start()
    thread.join(60)
    assert [stream() for stream in gone] == [None] * 4
    assert engine.process("Hello", max_tokens=2).response
