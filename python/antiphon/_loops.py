"""Event loops that wait for the engine.

The engine's threads put the futures of those who wait into a line. One daemon thread takes all there are and has each loop set
its own in one call: a loop is woken once a batch, however many of its streams can be read.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

_lock = threading.Lock()
_is_served = False


def serve() -> None:
    """Starts the thread that wakes loops, where this process has none yet."""
    global _is_served
    if _is_served:
        return
    with _lock:
        if not _is_served:
            threading.Thread(target=_serve, name="antiphon-loops", daemon=True).start()
            _is_served = True


def _serve() -> None:
    while True:
        _serve_some(_native.take_waiters())


def _serve_some(waiters: list[Future[None]]) -> None:
    loops: dict[AbstractEventLoop, list[Future[None]]] = {}
    for waiter in waiters:
        loops.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, own in loops.items():
        try:
            loop.call_soon_threadsafe(_wake, own)
        except RuntimeError:
            # It is closed: nobody waits in it any more.
            pass


def _wake(waiters: list[Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


def _forked() -> None:
    global _lock, _is_served
    _lock, _is_served = threading.Lock(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
