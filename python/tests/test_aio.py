"""The engine for event loops."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, Callable

import antiphon
import pytest

from conftest import GOES_ON, Run
from generators import Broods, Stalls

HELP = "Hello, I need help with my account"


@pytest.fixture(scope="module")
def shared() -> Iterator[antiphon.AsyncEngine]:
    """One engine, which serves a loop for each test."""
    engine = antiphon.AsyncEngine()
    yield engine
    asyncio.run(engine.aclose())


@pytest.fixture
def lonely() -> Iterator[antiphon.AsyncEngine]:
    """An engine with one place, and models that never end."""
    engine = antiphon.AsyncEngine(threads=1, generators=[Stalls(), Broods()], batcher={"max_concurrent": 1})
    yield engine
    asyncio.run(engine.aclose())


def test_every_call_gives_what_the_one_that_waits_gives(
    engine: antiphon.Engine, shared: antiphon.AsyncEngine
) -> None:
    async def main() -> None:
        assert await shared.analyze(HELP) == engine.analyze(HELP)
        texts = [HELP, "Where is order 4711?"] * 20
        assert await shared.analyze_batch(texts) == engine.analyze_batch(texts)
        assert await shared.intent(HELP) == engine.intent(HELP)
        assert await shared.sentiment(HELP) == engine.sentiment(HELP)
        assert await shared.entities(HELP) == engine.entities(HELP)
        assert await shared.embed(HELP) == engine.embed(HELP)
        assert await shared.embed(texts) == engine.embed(texts)
        text = "One lamp is blue. Another lamp is red. The parcel is late."
        assert await shared.summarize(text, sentences=1) == engine.summarize(text, sentences=1)
        reply = await shared.process(HELP, max_tokens=8)
        assert reply.response == engine.process(HELP, max_tokens=8).response
        messages = [{"role": "user", "content": "Hello"}]
        completion = await shared.generate(messages, max_tokens=8)
        assert completion.reply.response == engine.generate(messages, max_tokens=8).reply.response
        chunks = [chunk async for chunk in await shared.generate(messages, max_tokens=8, stream=True)]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == completion.reply.response
        assert [model.to_dict() for model in await shared.models()] == [model.to_dict() for model in engine.models()]
        assert shared.ready() and (await shared.health()).status == "healthy"
        assert (await shared.diagnose()).configuration == engine.diagnose().configuration
        assert "ai_requests_total" in await shared.metrics()
        await shared.cache.warm("Warm", max_tokens=2)
        assert (await shared.process("Warm", max_tokens=2)).metadata.response_generation.cache == "hit"
        await shared.cache.clear()
        assert (await shared.cache.stats()).entries == 0
        await shared.cache.resize(1 << 20)
        assert (await shared.cache.stats()).max_bytes == 1 << 20

    asyncio.run(main())


def test_a_stream_is_an_analysis_chunks_and_a_reply(shared: antiphon.AsyncEngine) -> None:
    async def main() -> None:
        async with shared.stream(HELP, cache="bypass") as stream:
            events = [event async for event in stream]
        assert [event.type for event in events] == ["analysis"] + ["chunk"] * (len(events) - 2) + ["done"]
        assert events[-1].reply is not None
        assert events[-1].reply.response == "".join(event.content for event in events)
        with pytest.raises(antiphon.ClosedError):
            await stream.__anext__()

    asyncio.run(main())


def test_a_conversation_remembers(shared: antiphon.AsyncEngine) -> None:
    async def main() -> None:
        async with shared.conversation(user_id="u") as conversation:
            answer = "".join([event.content async for event in conversation.say(HELP, max_tokens=6)])
            assert conversation.history == [
                {"role": "user", "content": HELP},
                {"role": "assistant", "content": answer},
            ]
            conversation.reset()
            assert conversation.history == []
        with pytest.raises(antiphon.ClosedError):
            conversation.say(HELP)

    asyncio.run(main())


def test_a_consumer_may_be_a_coroutine_and_may_stop(shared: antiphon.AsyncEngine) -> None:
    heard: list[str] = []

    async def hear(event: antiphon.Event) -> bool:
        await asyncio.sleep(0)
        heard.append(event.type)
        return len(heard) == 3

    def fail(event: antiphon.Event) -> None:
        raise mine

    mine = ValueError("mine")

    async def main() -> None:
        reply = await shared.process(HELP, on_event=hear, **GOES_ON)
        assert (reply.finish_reason, len(heard)) == ("cancelled", 3)
        with pytest.raises(ValueError) as raised:
            await shared.process(HELP, on_event=fail)
        assert raised.value is mine

    asyncio.run(main())


def test_an_engine_opens_in_a_thread_and_closes_behind_its_block() -> None:
    async def main() -> None:
        async with await antiphon.AsyncEngine.open(threads=1) as engine:
            await engine.process("Hello", max_tokens=2)
        with pytest.raises(antiphon.ClosedError):
            await engine.process("Hello")
        with pytest.raises(antiphon.InvalidConfigError):
            await antiphon.AsyncEngine.open(threadz=1)
        draining = antiphon.AsyncEngine(threads=1)
        task = asyncio.create_task(draining.process("Hello", max_tokens=4))
        await asyncio.sleep(0)
        await draining.drain(timeout=60)
        assert (await task).response

    asyncio.run(main())


@pytest.mark.parametrize(
    "work",
    [
        lambda engine: engine.process("Hello", model="broods"),
        lambda engine: engine.generate([{"role": "user", "content": "Hello"}], model="broods"),
        lambda engine: whole(engine.stream("Hello", model="broods")),
        lambda engine: whole(engine.stream("Hello", model="stalls")),
        lambda engine: engine.process("Hello", model="stalls", on_event=lambda event: None),
    ],
    ids=["process", "generate", "stream", "within a stream", "consumer"],
)
def test_faults_69_a_task_that_is_cancelled_cancels_its_work(
    lonely: antiphon.AsyncEngine, work: Callable[[antiphon.AsyncEngine], Awaitable[Any]]
) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(work(lonely))
        while "antiphon_running_requests 1" not in await lonely.metrics():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The model would keep the one place for ever.
        assert (await lonely.process("Hello", max_tokens=2)).response

    asyncio.run(main())


async def whole(stream: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in stream]


def test_faults_69_a_time_out_of_the_loops_cancels_the_work(lonely: antiphon.AsyncEngine) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(lonely.process("Hello", model="broods"), 0.05)
        assert (await lonely.process("Hello", max_tokens=2)).response

    asyncio.run(main())


def test_faults_69_a_stream_that_is_cancelled_from_outside_ends_with_the_error(lonely: antiphon.AsyncEngine) -> None:
    async def main() -> None:
        stream = lonely.stream("Hello", model="stalls")
        task = asyncio.ensure_future(whole(stream))
        await asyncio.sleep(0.02)
        threading.Thread(target=stream.cancel).start()
        with pytest.raises(antiphon.RequestCancelledError):
            await task

    asyncio.run(main())


def test_faults_69_a_loop_that_closes_before_the_answer_is_left_alone(run: Run) -> None:
    done = run(
        """
        import asyncio, gc, sys, threading
        import antiphon

        class Waits:
            name = "waits"
            go = threading.Event()
            def generate(self, request):
                self.go.wait()
                yield "late"

        errors = []
        threading.excepthook = lambda args: errors.append(args.exc_value)
        sys.unraisablehook = lambda args: errors.append(args.exc_value)
        waits = Waits()
        engine = antiphon.AsyncEngine(threads=1, generators=[waits])
        kept = []

        async def main():
            task = asyncio.ensure_future(engine.process("Hello", model="waits"))
            await asyncio.sleep(0.05)
            kept.append(task)

        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: errors.append(context))
        # The loop is closed with the task still waiting.
        loop.run_until_complete(main())
        loop.close()
        waits.go.set()
        # Another loop goes on as ever.
        print(asyncio.run(engine.process("Hello", max_tokens=2)).finish_reason)
        kept[0]._log_destroy_pending = False
        kept.clear()
        gc.collect()
        asyncio.run(engine.aclose())
        print(errors)
        """,
        stderr=True,
    )
    assert done.stdout.splitlines() == ["length", "[]"]
    assert "never retrieved" not in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_faults_69_one_engine_serves_two_loops_at_once(shared: antiphon.AsyncEngine) -> None:
    answers: list[list[str]] = []

    async def main(name: str) -> list[str]:
        replies = [shared.process(f"{name} {number}", max_tokens=4, cache="bypass") for number in range(8)]
        return [reply.response for reply in await asyncio.gather(*replies)]

    threads = [
        threading.Thread(target=lambda name=name: answers.append(asyncio.run(main(name)))) for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [len(own) for own in answers] == [8, 8]


def test_streams_cost_no_threads(shared: antiphon.AsyncEngine) -> None:
    async def main() -> int:
        streams = [shared.stream(f"Hello {number}", max_tokens=8, cache="bypass") for number in range(50)]
        tasks = [asyncio.ensure_future(whole(stream)) for stream in streams]
        await asyncio.sleep(0.05)
        count = threading.active_count()
        assert [events[-1].type for events in await asyncio.gather(*tasks)] == ["done"] * 50
        return count

    asyncio.run(main())
    before = threading.active_count()
    assert asyncio.run(main()) <= before


def test_a_loop_is_woken_once_for_all_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    async def main() -> None:
        engine = antiphon.AsyncEngine(threads=1, generators=[Broods()], batcher={"max_concurrent": 8})
        streams = [engine.stream(f"Hello {number}", model="broods") for number in range(8)]
        for stream in streams:
            assert (await stream.__anext__()).type == "analysis"
        tasks = [asyncio.ensure_future(stream.__anext__()) for stream in streams]
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        original = loop.call_soon_threadsafe

        def counted(callback: Any, waiters: Any) -> Any:
            calls.append(len(waiters))
            return original(callback, waiters)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        # All end while this thread has the interpreter: whoever tells the loop has to wait for it.
        interval = sys.getswitchinterval()
        sys.setswitchinterval(60)
        for stream in streams:
            stream.cancel()
        sys.setswitchinterval(interval)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in ended] == [antiphon.RequestCancelledError] * 8
        monkeypatch.undo()
        await engine.aclose()

    asyncio.run(main())
    assert calls == [8]


def test_nothing_is_left_behind_by_cancelled_streams(lonely: antiphon.AsyncEngine) -> None:
    async def main() -> None:
        for _ in range(50):
            stream = lonely.stream("Hello", model="stalls")
            await stream.__anext__()
            await stream.aclose()
        assert (await lonely.process("Hello", max_tokens=2)).response

    asyncio.run(main())
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, antiphon.AsyncReplyStream)]
