"""How regularly an event loop gets its turn while streams run on it.

A task sleeps 10 ms again and again; a gap is how much later than that it woke. Without streams the gaps are the
system's, which are measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from antiphon import AsyncEngine
from service import percentile, table

BEAT_SECONDS = 0.01


async def beat(seconds: float) -> list[float]:
    gaps = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await asyncio.sleep(BEAT_SECONDS)
        gaps.append(time.perf_counter() - begun - BEAT_SECONDS)
    return sorted(gaps)


async def listen(engine: AsyncEngine, number: int, counts: dict[str, int]) -> None:
    """One stream after the other, none of them from the cache."""
    while True:
        message = f"I want a refund for order {number}, it arrived broken"
        async with engine.stream(message, cache="bypass") as events:
            async for event in events:
                counts[event.type] = counts.get(event.type, 0) + 1


async def measure(streams: int, seconds: float, threads: int | None) -> None:
    counts: dict[str, int] = {}
    batcher = {"max_concurrent": streams, "max_queue": streams, "timeout_ms": 600_000}
    async with await AsyncEngine.open(threads=threads, batcher=batcher) as engine:
        quiet = await beat(seconds / 4)
        listeners = [asyncio.create_task(listen(engine, 4711 + number, counts)) for number in range(streams)]
        await asyncio.sleep(0.5)
        counts.clear()
        busy = await beat(seconds)
        for listener in listeners:
            listener.cancel()
        for end in await asyncio.gather(*listeners, return_exceptions=True):
            if not isinstance(end, asyncio.CancelledError):
                raise SystemExit(f"a stream failed: {end!r}")
    table(
        [
            ("streams", str(streams)),
            ("chunks/s", f"{counts.get('chunk', 0) / seconds:.0f}"),
            ("answers/s", f"{counts.get('done', 0) / seconds:.1f}"),
            *(
                (f"{name}, P{share * 100:g}", f"{percentile(gaps, share) * 1e3:.2f} ms")
                for name, gaps in (("gap without streams", quiet), ("gap with streams", busy))
                for share in (0.5, 0.99, 1)
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, help="of the engine; by default as many as it may use")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.streams, arguments.seconds, arguments.threads))


if __name__ == "__main__":
    main()
