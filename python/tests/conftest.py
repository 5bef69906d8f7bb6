"""An engine for all, programs in processes of their own, and an end for what hangs."""

from __future__ import annotations

import faulthandler
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, Callable

# A shell starts what it runs in the background with Ctrl-C ignored, and every program from there on would inherit that. Before
# the package is imported, which must leave signals alone.
signal.signal(signal.SIGINT, signal.default_int_handler)

import antiphon  # noqa: E402
import pytest  # noqa: E402

Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Options of an answer that goes on: the token that ends one is ruled out, so that whoever stops it is in time.
GOES_ON: dict[str, Any] = {"logit_bias": {3: -100.0}, "max_tokens": 900, "cache": "bypass"}


@pytest.fixture(autouse=True)
def _nothing_hangs() -> Iterator[None]:
    """Far beyond what any test takes: one that hangs says where, and ends."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def engine() -> Iterator[antiphon.Engine]:
    with antiphon.Engine() as engine:
        yield engine


@pytest.fixture
def run() -> Run:
    """Runs a program in a process of its own. What it prints to standard error fails it, unless that is expected."""

    def run(program: str, *, code: int = 0, stderr: bool = False, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == code, f"it ended with {done.returncode}: {done.stderr}"
        assert stderr or not done.stderr, done.stderr
        return done

    return run
