"""Ctrl-C, panics, and interpreters that end while an engine is at work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import antiphon
import pytest
from antiphon import _native

from conftest import Run

#: What every program of this file begins with.
PRELUDE = """
import asyncio, os, signal, sys, threading, time
import antiphon

class Broods:
    name = "broods"
    def generate(self, request):
        while True:
            yield ""
            time.sleep(0.005)

engine = antiphon.Engine(threads=1, generators=[Broods()], batcher={"max_concurrent": 4})
"""


def program(text: str) -> str:
    return PRELUDE + textwrap.dedent(text)


WAITS = {
    "process": 'engine.process("Hello", model="broods")',
    "stream": '[event for event in engine.stream("Hello", model="broods")]',
    "consumer": 'engine.process("Hello", model="broods", on_event=lambda event: None)',
    "generate": 'engine.generate([{"role": "user", "content": "Hello"}], model="broods")',
    "summarize": 'engine.summarize("A lamp is blue. Another one is red. " * 20000)',
    "drain": 'other = antiphon.Engine(threads=1, generators=[Broods()]); stream = other.stream("Hello", model="broods"); other.drain()',
    "analyze_batch": 'engine.analyze_batch(["Where is order 4711? " * 25] * 3000)',
    "asyncio": 'asyncio.run(antiphon.AsyncEngine(threads=1, generators=[Broods()]).process("Hello", model="broods"))',
}


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_faults_62_ctrl_c_ends_a_call_that_waits(run: Run, wait: str) -> None:
    """It waits for a twentieth of a second. A busy machine is given far longer, as only one that hangs is at fault."""
    done = run(
        program(
            f"""
            def interrupt():
                time.sleep(0.3)
                global sent
                sent = time.perf_counter()
                os.kill(os.getpid(), signal.SIGINT)

            for _ in range(3):
                threading.Thread(target=interrupt).start()
                try:
                    {wait}
                except KeyboardInterrupt:
                    print(time.perf_counter() - sent)
            # What was interrupted has stopped: it would keep a place, and there is one left for this.
            print(engine.process("Hello", max_tokens=2).finish_reason)
            """
        )
    )
    *waits, last = done.stdout.splitlines()
    assert len(waits) == 3 and last == "length"
    assert max(float(wait) for wait in waits) < 20, waits


@pytest.mark.parametrize("is_outside", [True, False])
def test_faults_63_a_panic_is_an_error_that_except_exception_catches(run: Run, is_outside: bool) -> None:
    done = run(
        f"""
        import antiphon
        from antiphon import _native
        for _ in range(3):
            try:
                _native.panic({is_outside})
            except Exception as error:
                print(type(error).__name__, error.code, error)
        print(antiphon.Engine(threads=1).analyze("Hello").intent.label)
        """,
        stderr=True,
    )
    assert done.stdout.splitlines() == ["InternalError -901 a bug of this library: for a test"] * 3 + ["greeting"]


ENDS = {
    "within a stream": (0, 'stream = engine.stream("Hello", model="broods"); next(stream)'),
    "a daemon thread waits for an answer": (
        0,
        'threading.Thread(target=lambda: engine.process("Hello", model="broods"), daemon=True).start(); time.sleep(0.05)',
    ),
    "daemon threads ask on and on": (
        0,
        """
        def ask():
            while True:
                try:
                    engine.process("Hello", cache="bypass")
                except antiphon.AntiphonError:
                    pass
        for _ in range(4):
            threading.Thread(target=ask, daemon=True).start()
        time.sleep(0.1)
        """,
    ),
    "a daemon thread reads a stream": (
        0,
        """
        def read():
            for event in engine.stream("Hello", model="broods"):
                pass
        threading.Thread(target=read, daemon=True).start()
        time.sleep(0.05)
        """,
    ),
    "a callback exits": (3, 'engine.process("Hello", on_event=lambda event: sys.exit(3))'),
    "a callback exits for good": (4, 'engine.process("Hello", on_event=lambda event: os._exit(4))'),
    "sys.exit": (5, 'stream = engine.stream("Hello", model="broods"); next(stream); sys.exit(5)'),
    "os._exit": (6, 'stream = engine.stream("Hello", model="broods"); next(stream); os._exit(6)'),
    "a generator sleeps": (
        0,
        """
        class Sleeps:
            name = "sleeps"
            def generate(self, request):
                time.sleep(3600)
        other = antiphon.Engine(threads=1, generators=[Sleeps()])
        stream = other.stream("Hello", model="sleeps")
        next(stream)
        time.sleep(0.05)
        """,
    ),
    "a generator computes": (
        0,
        """
        class Computes:
            name = "computes"
            def generate(self, request):
                while True:
                    pass
        other = antiphon.Engine(threads=1, generators=[Computes()])
        stream = other.stream("Hello", model="computes")
        next(stream)
        time.sleep(0.05)
        """,
    ),
    "within a loop": (
        7,
        """
        async def main():
            stream = antiphon.AsyncEngine(threads=1, generators=[Broods()]).stream("Hello", model="broods")
            async for event in stream:
                sys.exit(7)
        asyncio.run(main())
        """,
    ),
    "a daemon thread runs a loop": (
        0,
        """
        aio = antiphon.AsyncEngine(threads=1, generators=[Broods()])
        async def main():
            tasks = [asyncio.ensure_future(aio.process("Hello", cache="bypass")) for _ in range(20)]
            await aio.process("Hello", model="broods")
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        time.sleep(0.1)
        """,
    ),
    "an engine is opened by a daemon thread": (
        0,
        'threading.Thread(target=lambda: [antiphon.Engine(threads=1) for _ in range(100)], daemon=True).start(); time.sleep(0.1)',
    ),
    "an engine is used behind the last exit hook": (
        0,
        """
        import atexit
        class Late:
            def __del__(self):
                try:
                    engine.process("Hello")
                except antiphon.ClosedError:
                    pass
        sys.late = Late()
        """,
    ),
}


@pytest.mark.parametrize(("code", "ends"), ENDS.values(), ids=ENDS)
def test_faults_64_an_interpreter_ends_as_it_was_asked_to(run: Run, code: int, ends: str) -> None:
    """The bound is 2 s; a machine that is busy elsewhere is given more. Nothing is printed, and nothing aborts."""
    for _ in range(3):
        begun = time.monotonic()
        run(program(ends), code=code)
        assert time.monotonic() - begun < 20


def test_faults_64_two_hundred_interpreters_end_within_streams() -> None:
    """Each in a process that was forked from one with the package imported, so that it takes seconds and not minutes."""
    forks = program(
        """
        engine.close()
        for number in range(200):
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                own = antiphon.Engine(threads=1, responder=None, generators=[Broods()])
                def read():
                    for event in own.stream("Hello", model="broods"):
                        pass
                threading.Thread(target=read, daemon=True).start()
                stream = own.stream("Hello there", model="broods")
                next(stream)
                sys.exit(number % 7)
            status = os.waitpid(pid, 0)[1]
            assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == number % 7, (number, status)
        """
    )
    if not hasattr(os, "fork"):
        pytest.skip("no fork")
    subprocess.run([sys.executable, "-W", "ignore", "-c", forks], check=True, timeout=280)


def test_a_process_that_ends_by_a_signal_ends_by_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", program("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)")], check=False, timeout=60
    )
    assert done.returncode == -signal.SIGTERM


def test_signals_are_the_hosts() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with antiphon.Engine(threads=1) as engine:
        engine.process("Hello", max_tokens=1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert _native.VERSION == antiphon.__version__
