"""How often one address may connect."""

from __future__ import annotations

import time
from collections import deque


class ConnectionLimit:
    """Counts the connections of each address in the last minute. Behind a proxy, uvicorn finds out the address from
    `X-Forwarded-For` when `FORWARDED_ALLOW_IPS` names that proxy."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._opened: dict[str, deque[float]] = {}

    def seconds_to_wait(self, address: str) -> float:
        """0 for a connection that may be, which is counted; otherwise the time until one may."""
        now = time.monotonic()
        opened = self._opened.setdefault(address, deque())
        while opened and opened[0] <= now - WINDOW_SECONDS:
            opened.popleft()
        if len(opened) >= self._per_minute:
            return opened[0] + WINDOW_SECONDS - now
        opened.append(now)
        if len(self._opened) > MANY_ADDRESSES:
            recent = {known: times for known, times in self._opened.items() if times[-1] > now - WINDOW_SECONDS}
            self._opened = recent
        return 0


WINDOW_SECONDS = 60
MANY_ADDRESSES = 4096
