"""What a host puts into an engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import antiphon
import pytest

from generators import BreaksOff, Broods, Mute, Parrot

Request = dict[str, Any]


class Shelf:
    """A tier in this process."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.ttls: list[float] = []
        self.calls: list[str] = []

    def get(self, key: bytes) -> bytes | None:
        self.calls.append("get")
        return self.values.get(key)

    def put(self, key: bytes, value: bytes, ttl: float) -> None:
        self.calls.append("put")
        self.ttls.append(ttl)
        self.values[key] = value

    def remove(self, key: bytes) -> None:
        self.values.pop(key, None)


def eventually(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to be")


def test_engines_share_a_tier() -> None:
    shelf = Shelf()
    with antiphon.Engine(threads=1, shared_tier=shelf) as first, antiphon.Engine(threads=1, shared_tier=shelf) as second:
        answer = first.process("Hello", max_tokens=4)
        eventually(lambda: shelf.values)
        assert shelf.ttls == [3600.0]

        def shared() -> bool:
            second.cache.clear()
            reply = second.process("Hello", max_tokens=4)
            assert reply.response == answer.response
            return reply.metadata.response_generation.cache == "shared"

        # A machine that is busy elsewhere may take longer than the 20 ms that a request waits for.
        eventually(shared)


def test_a_tier_that_fails_costs_nothing_but_itself() -> None:
    class Broken(Shelf):
        def get(self, key: bytes) -> bytes | None:
            self.calls.append("get")
            raise OSError("no route")

        def put(self, key: bytes, value: bytes, ttl: float) -> None:
            raise KeyboardInterrupt

    class Wrong(Shelf):
        def get(self, key: bytes) -> Any:
            self.calls.append("get")
            return "text"

    for tier in (Broken(), Wrong()):
        with antiphon.Engine(threads=1, shared_tier=tier) as engine:
            assert engine.process("Hello", max_tokens=2).metadata.response_generation.cache == "miss"
            assert "get" in tier.calls


def test_a_generator_answers_between_analysis_and_reply() -> None:
    with antiphon.Engine(threads=1, generators=[Parrot()]) as engine:
        events = list(engine.stream("Where is my parcel?", model="parrot"))
        assert [event.type for event in events][0] == "analysis"
        assert events[-1].reply is not None and events[-1].reply.response == "Where is my parcel?"
        assert "parrot" in [model.model_name for model in engine.models()]
        asked = engine.generate([{"role": "user", "content": "Polly"}], model="parrot", max_tokens=9)
        assert asked.choices[0].message.content == "Polly" and asked.model == "parrot"


def test_a_generator_that_fails_costs_what_it_says() -> None:
    with antiphon.Engine(threads=1, generators=[Mute(), BreaksOff()]) as engine:
        assert engine.process("Hello", model="mute").metadata.response_generation.degraded == "template"
        stream = engine.stream("Hello", model="breaks_off")
        assert [next(stream).type, next(stream).content] == ["analysis", "one "]
        with pytest.raises(antiphon.PluginFailedError):
            next(stream)


@pytest.mark.parametrize("gives", [None, 7, [b"bytes"], ["a\ud800"]], ids=repr)
def test_a_generator_that_gives_no_text_has_failed(gives: Any) -> None:
    class Odd:
        name = "odd"

        def generate(self, request: Request) -> Any:
            return gives

    with antiphon.Engine(threads=1, generators=[Odd()]) as engine:
        assert engine.process("Hello", model="odd").metadata.response_generation.degraded == "template"


def test_a_generator_is_closed_where_nobody_wants_more() -> None:
    closed = threading.Event()

    class Careful:
        name = "careful"

        def generate(self, request: Request) -> Iterable[str]:
            try:
                while True:
                    yield "on "
            finally:
                closed.set()

    with antiphon.Engine(threads=1, generators=[Careful()]) as engine:
        assert engine.process("Hello", model="careful", stop=["on on on on"]).response == ""
        assert closed.wait(60)


def test_generators_run_at_once() -> None:
    meeting = threading.Barrier(3)

    class Meets:
        name = "meets"

        def generate(self, request: Request) -> Iterable[str]:
            meeting.wait(60)
            yield "met"

    with antiphon.Engine(threads=1, generators=[Meets()]) as engine:
        streams = [engine.stream(f"Hello {number}", model="meets") for number in range(3)]
        assert [list(stream)[-1].type for stream in streams] == ["done"] * 3


def test_a_stage_changes_requests_and_answers() -> None:
    class Discreet(antiphon.Stage):
        seen: list[Any] = []

        def before(self, request: Request, /) -> Request | None:
            self.seen.append(request)
            if "4711" not in request["message"]:
                return None
            return {**request, "message": request["message"].replace("4711", "####")}

        def after(self, reply: antiphon.Reply, /) -> str | None:
            self.seen.append(reply)
            return "Goodbye!" if reply.intent == "goodbye" else None

    stage = Discreet()
    with antiphon.Engine(threads=1, generators=[Parrot()], stages=[stage]) as engine:
        assert engine.process("Order 4711", model="parrot").response == "Order ####"
        assert stage.seen[0]["message"] == "Order 4711" and stage.seen[0]["options"]["model"] == "parrot"
        assert stage.seen[1].response == "Order ####"
        assert engine.process("Bye, have a nice day!").response == "Goodbye!"
        events = [event.type for event in engine.stream("Hello there", max_tokens=4)]
        assert events[0] == "analysis" and events[-1] == "done"


def test_a_stage_that_looks_at_requests_alone_holds_nothing_back() -> None:
    first_word = threading.Event()

    class Waits:
        name = "waits"

        def generate(self, request: Request) -> Iterable[str]:
            yield "one "
            assert first_word.wait(60)
            yield "two"

    class Looks(antiphon.Stage):
        def before(self, request: Request, /) -> None:
            request["message"] = "a change without effect: nothing is given back"

    with antiphon.Engine(threads=1, generators=[Waits()], stages=[Looks()]) as engine:
        stream = engine.stream("Hello", model="waits")
        assert [next(stream).type, next(stream).content] == ["analysis", "one "]
        first_word.set()
        assert [event.type for event in stream][-1] == "done"


@pytest.mark.parametrize("raised", [ValueError("no"), KeyboardInterrupt(), SystemExit(2)], ids=repr)
def test_a_stage_that_refuses_says_why(raised: BaseException) -> None:
    class Refuses(antiphon.Stage):
        def before(self, request: Request, /) -> None:
            raise raised

    with antiphon.Engine(threads=1, stages=[Refuses()]) as engine:
        for call in (
            lambda: engine.process("secret"),
            lambda: engine.stream("secret"),
            lambda: engine.generate([{"role": "user", "content": "secret"}]),
            lambda: engine.conversation().say("secret"),
        ):
            if isinstance(raised, Exception):
                with pytest.raises(antiphon.PluginFailedError) as failed:
                    call()
                assert failed.value.__cause__ is raised
                assert "secret" not in str(failed.value)
            else:
                with pytest.raises(type(raised)) as caught:
                    call()
                assert caught.value is raised
        assert engine.analyze("Hello").intent.label == "greeting"


@pytest.mark.parametrize("gives", [7, b"bytes", "a\ud800", RuntimeError("no")], ids=repr)
def test_an_answer_is_not_told_where_a_stage_fails(gives: Any) -> None:
    class Odd(antiphon.Stage):
        def after(self, reply: antiphon.Reply, /) -> Any:
            if isinstance(gives, Exception):
                raise gives
            return gives

    with antiphon.Engine(threads=1, stages=[Odd()]) as engine, pytest.raises(antiphon.PluginFailedError):
        engine.process("Hello", max_tokens=2)


def test_a_stage_that_gives_no_request_has_failed() -> None:
    class Odd(antiphon.Stage):
        gives: Any = None

        def before(self, request: Request, /) -> Any:
            return self.gives

    stage = Odd()
    with antiphon.Engine(threads=1, stages=[stage]) as engine:
        for stage.gives in ("text", {"message": 7}, {"message": "x", "colour": 1}):
            with pytest.raises(antiphon.PluginFailedError):
                engine.process("Hello")


def test_observers_are_told_in_order_and_those_that_raise_no_more() -> None:
    told: list[tuple[str, Any]] = []
    calls: list[str] = []

    class Listens(antiphon.Observer):
        def event(self, name: str, fields: dict[str, Any], /) -> None:
            told.append((name, fields))

    class Raises:
        def log(self, level: str, target: str, message: str) -> None:
            calls.append("log")
            raise RuntimeError

        def event(self, name: str, fields: dict[str, Any]) -> None:
            calls.append("event")
            raise RuntimeError

    with antiphon.Engine(threads=1, observers=[Raises(), Listens()]) as engine:
        engine.process("Hello", max_tokens=2)
        eventually(lambda: [name for name, _ in told].count("request") == 1)
        with pytest.raises(antiphon.InvalidTextError):
            engine.process(" ")
        eventually(lambda: [name for name, _ in told].count("request") == 2)
        assert len(calls) == 1
        assert all(isinstance(fields, dict) for _, fields in told)


def test_an_observer_hears_the_log() -> None:
    lines: list[tuple[str, str, str]] = []

    class Listens(antiphon.Observer):
        def log(self, level: str, target: str, message: str, /) -> None:
            lines.append((level, target, message))

    breaker = {"failure_threshold": 1, "reset_after_ms": 60_000}
    with antiphon.Engine(threads=1, observers=[Listens()], generators=[Mute()], breaker=breaker) as engine:
        engine.process("Hello", model="mute")
        eventually(lambda: lines)
        assert all(level in ("error", "warn", "info", "debug") for level, _, _ in lines)
        assert not any("it is mute" in message for _, _, message in lines), "an exception's text may be a user's"
        assert any("RuntimeError" in message for _, _, message in lines)


def test_what_is_no_plugin_is_refused() -> None:
    class Nameless:
        def generate(self, request: Request) -> Iterable[str]:
            return []

    class Speechless:
        name = "speechless"

    wrong: list[dict[str, Any]] = [
        {"generators": [Nameless()]},
        {"generators": [Speechless()]},
        {"shared_tier": Speechless()},
        {"stages": [type("S", (), {"before": 7})()]},
    ]
    for plugins in wrong:
        with pytest.raises(TypeError):
            antiphon.Engine(**plugins)
    with pytest.raises(antiphon.InvalidConfigError):
        antiphon.Engine(generators=[Parrot(), Parrot()])


def test_the_threads_of_plugins_end_with_their_engine() -> None:
    def serving() -> int:
        return sum(thread.name == "antiphon-plugins" for thread in threading.enumerate())

    eventually(lambda: serving() == 0)
    engine = antiphon.Engine(threads=1, generators=[Parrot()], observers=[type("O", (antiphon.Observer,), {})()])
    engine.process("Hello", model="parrot")
    assert serving() >= 1
    engine.close()
    eventually(lambda: serving() == 0)
    with pytest.raises(antiphon.InvalidConfigError):
        antiphon.Engine(generators=[Parrot()], threadz=1)
    eventually(lambda: serving() == 0)


def test_an_engine_that_closes_does_not_wait_for_a_generator() -> None:
    engine = antiphon.Engine(threads=1, generators=[Broods()])
    stream = engine.stream("Hello", model="broods")
    engine.close()
    with pytest.raises(antiphon.ClosedError):
        list(stream)
