"""From opening to the end of the interpreter, and over a fork."""

from __future__ import annotations

import atexit
import os
import weakref

from . import _native
from ._errors import AntiphonError

_open: weakref.WeakSet[Owned] = weakref.WeakSet()


class Owned:
    """An engine that is closed before the interpreter ends."""

    __slots__ = ("__weakref__", "native")

    def __init__(self, native: _native.Engine) -> None:
        self.native = native
        _open.add(self)


@atexit.register
def _leave() -> None:
    # First nobody comes back into an interpreter that is ending, then the engines' own threads end.
    _native.leave()
    for owned in list(_open):
        try:
            owned.native.close()
        except AntiphonError:
            # Opened before a fork: not ours to close.
            pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_native.forked)
