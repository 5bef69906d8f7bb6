"""Models of a host's own, as the conformance files name them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

Request = dict[str, Any]


class Parrot:
    """Writes the last turn, word by word, each with the blank behind it."""

    name = "parrot"

    def generate(self, request: Request) -> Iterator[str]:
        *words, last = request["messages"][-1]["content"].split(" ")
        yield from (word + " " for word in words)
        yield last


class Mute:
    """Fails before it writes."""

    name = "mute"

    def generate(self, request: Request) -> Iterator[str]:
        raise RuntimeError("it is mute")


class BreaksOff:
    """Writes a word, then fails."""

    name = "breaks_off"

    def generate(self, request: Request) -> Iterator[str]:
        yield "one "
        raise RuntimeError("it broke off")


class Stalls:
    """Writes a word, then nothing, until nobody listens any more."""

    name = "stalls"

    def generate(self, request: Request) -> Iterator[str]:
        yield "one "
        yield from silence()


class Broods:
    """Writes nothing, until nobody listens any more."""

    name = "broods"

    def generate(self, request: Request) -> Iterator[str]:
        yield from silence()


def silence() -> Iterator[str]:
    while True:
        yield ""
        time.sleep(0.005)


BY_NAME = {generator.name: generator for generator in (Parrot, Mute, BreaksOff, Stalls, Broods)}
