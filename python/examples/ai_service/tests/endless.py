"""The service with generators of a host's own: one that never ends by itself, and one that breaks.

What is cancelled with the first ended because it was cancelled, whatever the speed of the machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from ai_service.__main__ import serve
from ai_service.settings import Settings


class Endless:
    name = "endless"

    def generate(self, request: dict[str, Any]) -> Iterable[str]:
        while True:
            yield "and on "
            time.sleep(0.01)


class Broken:
    name = "broken"

    def generate(self, request: dict[str, Any]) -> Iterable[str]:
        yield "so far "
        yield "so good"
        raise ConnectionError("the other side is gone")


if __name__ == "__main__":
    serve(Settings.from_env(), generators=[Endless(), Broken()])
