"""Child processes: an engine is opened where it is used."""

from __future__ import annotations

import os

import pytest

from conftest import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")


def test_faults_66_an_engine_of_the_parent_is_an_error_in_a_child(run: Run) -> None:
    done = run(
        """
        import asyncio, os, sys, time, warnings
        warnings.simplefilter("ignore")
        import antiphon

        class Broods:
            name = "broods"
            def generate(self, request):
                while True:
                    yield ""
                    time.sleep(0.005)

        engine = antiphon.Engine(threads=1, generators=[Broods()])
        aio = antiphon.AsyncEngine(threads=1, generators=[Broods()])
        stream = engine.stream("Hello", model="broods")
        conversation = engine.conversation()
        next(stream)

        async def main():
            async for event in aio.stream("Hello", max_tokens=3):
                pass

        asyncio.run(main())
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            begun = time.monotonic()
            for name, call in {
                "process": lambda: engine.process("Hello"),
                "analyze": lambda: engine.analyze("Hello"),
                "embed": lambda: engine.embed("Hello"),
                "stream": lambda: engine.stream("Hello"),
                "next": lambda: next(stream),
                "say": lambda: conversation.say("Hello"),
                "stats": lambda: engine.cache.stats(),
                "models": lambda: engine.models(),
                "summarize": lambda: engine.summarize("Hello"),
                "close": lambda: engine.close(),
                "async": lambda: asyncio.run(aio.process("Hello")),
            }.items():
                try:
                    call()
                except antiphon.ForkedError:
                    print(name, end=" ")
            stream.cancel()
            stream.close()
            assert not engine.ready()
            assert time.monotonic() - begun < 20
            # One of its own works, in a loop, too, and the child ends as it should.
            with antiphon.Engine(threads=1, responder=None) as own:
                print(own.process("Hello").intent)
            own = antiphon.AsyncEngine(threads=1)
            print(len(asyncio.run(own.process("Hello", max_tokens=2)).response) > 0)
            del engine, stream, conversation
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        # The parent's goes on.
        stream.close()
        print(engine.process("Hello", max_tokens=2).finish_reason)
        """
    )
    assert done.stdout.splitlines() == [
        "process analyze embed stream next say stats models summarize close async greeting",
        "True",
        "length",
    ]


def test_faults_66_multiprocessing_forks_workers_that_open_their_own(run: Run) -> None:
    done = run(
        """
        import multiprocessing, warnings
        warnings.simplefilter("ignore")
        import antiphon

        def init():
            global own
            own = antiphon.Engine(threads=1, responder=None)

        def intent(text):
            return own.analyze(text).intent.label

        if __name__ == "__main__":
            engine = antiphon.Engine(threads=1)
            engine.process("Hello", max_tokens=2)
            with multiprocessing.get_context("fork").Pool(2, init) as pool:
                print(pool.map(intent, ["Hello", "Where is order 4711?"] * 4))
        """
    )
    assert done.stdout.strip() == str(["greeting", "track_order"] * 4)


def test_faults_66_a_fork_while_many_are_at_work(run: Run) -> None:
    """Locks may be held by threads that the child does not have: it asks for nothing that they protect."""
    run(
        """
        import asyncio, os, threading, time, warnings
        warnings.simplefilter("ignore")
        import antiphon

        engine = antiphon.Engine(threads=1)
        stop = threading.Event()

        def ask():
            while not stop.is_set():
                engine.process("Hello", cache="bypass", max_tokens=4)

        async def ask_in_a_loop():
            aio = antiphon.AsyncEngine(threads=1)
            while not stop.is_set():
                await aio.process("Hello", cache="bypass", max_tokens=4)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads.append(threading.Thread(target=lambda: asyncio.run(ask_in_a_loop())))
        for thread in threads:
            thread.start()
        for _ in range(20):
            stream = engine.stream("Hello", cache="bypass")
            pid = os.fork()
            if pid == 0:
                for call in (lambda: engine.process("Hello"), lambda: next(stream), lambda: engine.cache.stats()):
                    try:
                        call()
                    except antiphon.ForkedError:
                        pass
                    else:
                        os._exit(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            stream.close()
        stop.set()
        for thread in threads:
            thread.join()
        """
    )
