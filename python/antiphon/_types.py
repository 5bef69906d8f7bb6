"""Shapes that cross between the package and its native half."""

from __future__ import annotations

from typing import Any, Callable, Literal, Optional, TypedDict, Union

Function = Callable[..., Any]
#: Two functions of a plugin, each of which may be missing.
Pair = tuple[Optional[Function], Optional[Function]]
#: Its type, a chunk's text and index, and as JSON a chunk's log-probabilities, the analysis or the reply.
EventParts = tuple[str, Optional[str], Optional[int], Optional[str]]
#: A line for a log: level, target, message; or an event's name and its fields as JSON.
Note = Union[tuple[Literal["log"], str, str, str], tuple[Literal["event"], str, str]]


class Parts(TypedDict):
    """The functions of plugins."""

    tier: tuple[Function, Function, Function] | None
    generators: list[tuple[str, Function]]
    stages: list[Pair]
    observers: list[Pair]
