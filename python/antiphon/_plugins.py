"""What a host can put into an engine, and the threads that call it.

The engine's own threads never enter the interpreter: they put calls into a line, and daemon threads of Python's take them from
there. One is always waiting: whoever takes a call with nobody left behind it starts another one first.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Callable, Protocol

from . import _native
from ._results import Reply
from ._types import Function, Note, Pair, Parts


class SharedTier(Protocol):
    """A cache tier that engines share: a store of bytes by key, in another process or machine.

    Called from threads of its own, a few at once. A request waits for ``get`` at most 20 ms, then it is computed; one that raises
    or takes longer counts against the tier, which is left alone for a while after a few in a row. What comes back is not
    trusted: a value carries its whole key and a checksum.
    """

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key, if there is one."""
        ...

    def put(self, key: bytes, value: bytes, ttl: float, /) -> None:
        """Keeps a value for about ``ttl`` seconds, in place of an older one."""

    def remove(self, key: bytes, /) -> None:
        """Forgets a key; one that is not there is no error."""


class Generator(Protocol):
    """A model of the host's own: one behind a network, for instance. The engine analyses, queues, caches and streams around it.

    Called from threads of its own, as many at once as ``batcher.max_concurrent``; it may block. One that raises before its
    first piece is answered from the cache or by a template; later, the stream ends with :class:`PluginFailedError`.
    """

    @property
    def name(self) -> str:
        """What the option ``model`` calls it: of a-z, 0-9, '.', '_', '-', at most 64."""
        ...

    def generate(self, request: dict[str, Any], /) -> Iterable[str]:
        """The answer to the last turn of ``request["messages"]``, in pieces as they come.

        Where nobody wants more the iterable is closed: a generator gets ``GeneratorExit`` at its ``yield``.
        """
        ...


class Stage(Protocol):
    """Someone who looks at every request before it is answered, and at every answer before it is told: moderation, redaction.

    Requests meet stages in their order, answers in the opposite one. A stage that raises ends the request with
    :class:`PluginFailedError`, and nothing of the answer is told. Inherit from this class to have one of the two alone.
    """

    def before(self, request: dict[str, Any], /) -> dict[str, Any] | None:
        """Looks at a request, on the thread that asks; gives one to take its place, or None. To raise is to refuse it."""
        return None

    def after(self, reply: Reply, /) -> str | None:
        """Looks at an answer, and gives a text to take its place, or None. Answers are held back until it has seen them whole.

        Called from threads of its own. It must not ask the engine for an answer, which would wait for this one's place.
        """
        return None


class Observer(Protocol):
    """Someone who is told what happens: no text of a user is in it.

    Told soon after, in order, by a thread of its own. One that raises is not called again; one that is slower than what
    happens is told no more than it can hear. Inherit from this class to have one of the two alone.
    """

    def log(self, level: str, target: str, message: str, /) -> None:
        """A line for a log; ``level`` is ``error``, ``warn``, ``info`` or ``debug``."""
        return None

    def event(self, name: str, fields: dict[str, Any], /) -> None:
        """Something that happened, with its numbers. ``request``: one has ended; ``breaker``: a backend was given up or is back."""
        return None


def parts(
    shared_tier: SharedTier | None,
    generators: Iterable[Generator],
    stages: Iterable[Stage],
    observers: Iterable[Observer],
) -> Parts:
    """The functions of plugins, as the engine takes them."""
    tier = None
    if shared_tier is not None:
        get, put, remove = (_needed("shared_tier", shared_tier, name) for name in ("get", "put", "remove"))
        tier = (get, put, remove)
    return {
        "tier": tier,
        "generators": [_generator(generator) for generator in generators],
        "stages": [_stage(stage) for stage in stages],
        "observers": [
            (_own(observer, "log", Observer.log), _own(observer, "event", Observer.event)) for observer in observers
        ],
    }


def serve(engine: _native.Engine) -> None:
    """Starts the threads that an engine's plugins need; they end with it."""
    calls, notes = engine.calls(), engine.notes()
    if calls is not None:
        _start(_make_calls, calls)
    if notes is not None:
        _start(_tell_observers, notes)


def _generator(generator: Generator) -> tuple[str, Function]:
    name = getattr(generator, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"a generator's name must be str, not {type(name).__name__}")
    return name, _needed("a generator", generator, "generate")


def _stage(stage: Stage) -> Pair:
    before, after = _own(stage, "before", Stage.before), _own(stage, "after", Stage.after)
    if before is None:
        return None, after

    def looked(request: str) -> str | None:
        seen = json.loads(request)
        changed = before(seen)
        if changed is None:
            return None
        if not isinstance(changed, dict):
            raise TypeError(f"before must give dict or None, not {type(changed).__name__}")
        return json.dumps(changed)

    return looked, after


def _own(plugin: object, name: str, inherited: Function) -> Function | None:
    """A method that a plugin has itself: what it inherits from the protocol does nothing."""
    method = getattr(plugin, name, None)
    if method is None or getattr(method, "__func__", None) is inherited:
        return None
    if not callable(method):
        raise TypeError(f"`{name}` of a plugin must be a method")
    return method  # type: ignore[no-any-return]


def _needed(what: str, plugin: object, name: str) -> Function:
    method = getattr(plugin, name, None)
    if not callable(method):
        raise TypeError(f"{what} must have a method `{name}`")
    return method  # type: ignore[no-any-return]


def _start(work: Callable[[Any], None], line: object) -> None:
    threading.Thread(target=work, args=(line,), name="antiphon-plugins", daemon=True).start()


def _make_calls(calls: _native.Calls) -> None:
    # Nothing of a call outlives it: the next one may be long in coming.
    while _make_one(calls):
        pass


def _make_one(calls: _native.Calls) -> bool:
    taken = calls.take()
    if taken is None:
        return False
    call, is_last = taken
    if is_last:
        _start(_make_calls, calls)
    try:
        _make(call)
    except BaseException as raised:  # A host's code may raise anything, and somebody waits for the answer.
        call.fail(f"{call.kind} raised {type(raised).__name__}")
    return True


def _make(call: _native.Call) -> None:
    if call.kind == "generate":
        _generate(call)
    elif call.kind == "after":
        call.answer(_expected(call.function(Reply.from_json(call.arguments[0])), str))
    elif call.kind == "get":
        value = _expected(call.function(*call.arguments), (bytes, bytearray, memoryview))
        call.answer(None if value is None else bytes(value))
    else:
        call.function(*call.arguments)
        call.answer()


def _generate(call: _native.Call) -> None:
    pieces = iter(call.function(json.loads(call.arguments[0])))
    try:
        for piece in pieces:
            if not isinstance(piece, str):
                raise TypeError("a piece is no str")
            if not call.write(piece):
                break
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    call.answer()


def _expected(value: Any, types: type | tuple[type, ...]) -> Any:
    if value is not None and not isinstance(value, types):
        raise TypeError(f"unexpected {type(value).__name__}")
    return value


def _tell_observers(notes: _native.Notes) -> None:
    deaf: set[int] = set()
    while _tell_some(notes, deaf):
        pass


def _tell_some(notes: _native.Notes, deaf: set[int]) -> bool:
    batch = notes.take()
    if batch is None:
        return False
    for index, functions in enumerate(notes.observers()):
        if index not in deaf and not _told(functions, batch):
            deaf.add(index)
    return True


def _told(functions: Pair, batch: Sequence[Note]) -> bool:
    log, event = functions
    try:
        for note in batch:
            if note[0] == "log":
                if log is not None:
                    log(note[1], note[2], note[3])
            elif event is not None:
                event(note[1], json.loads(note[2]))
    except Exception:  # One that raises is not called again.
        return False
    return True
