"""Latency of `/process` under users who think.

Each user sends a message every 1 to 3 seconds, whether or not the answer before has come, and an answer's time counts
from the moment at which its message was due: a service that falls behind cannot hide it by slowing its users down.
Messages are made different from each other, so that the cache answers none (unless `--cached`).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

import httpx
from service import percentile, service, table

MESSAGES = [
    "Hello, I need help with my account",
    "Where is order {number}?",
    "I forgot the password of my account {number}",
    "I want a refund for order {number}, it arrived broken",
    "How long does the delivery of order {number} take?",
    "Please cancel order {number}",
    "Can you show me invoice {number}?",
    "I want to talk to a person about ticket {number}",
]


class Load:
    """The users of one measurement, and what they saw."""

    def __init__(self, client: httpx.AsyncClient, seconds: float, cached: bool) -> None:
        self.client = client
        self.seconds = seconds
        self.cached = cached
        self.times: list[float] = []
        self.failed: list[str] = []

    async def user(self, seed: int) -> None:
        chance = random.Random(seed)
        begun = time.perf_counter()
        due = begun + chance.uniform(0, 3)
        answers = []
        while due - begun < self.seconds:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            number = 4711 if self.cached else chance.randrange(10**9)
            message = chance.choice(MESSAGES).format(number=number) + ("" if self.cached else f" ({number})")
            answers.append(asyncio.create_task(self.ask(f"user-{seed}", message, due)))
            due += chance.uniform(1, 3)
        await asyncio.gather(*answers)

    async def ask(self, name: str, message: str, due: float) -> None:
        try:
            answer = await self.client.post("/process", json={"message": message, "user_id": name})
        except httpx.HTTPError as error:
            self.failed.append(type(error).__name__)
            return
        if answer.status_code == 200:
            self.times.append(time.perf_counter() - due)
        else:
            self.failed.append(answer.json()["error"]["kind"])


async def measure(address: str, users: int, seconds: float, cached: bool) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60, limits=limits) as client:
        await client.post("/process", json={"message": "Hello"})
        load = Load(client, seconds, cached)
        begun = time.perf_counter()
        await asyncio.gather(*(load.user(seed) for seed in range(users)))
        took = time.perf_counter() - begun
    times, failed = sorted(load.times), load.failed
    table(
        [
            ("users", str(users)),
            ("answers", str(len(times))),
            ("failed", str(len(failed)) + (f" ({', '.join(sorted(set(failed)))})" if failed else "")),
            ("answers/s", f"{len(times) / took:.1f}"),
            *((f"P{share * 100:g}", f"{percentile(times, share) * 1e3:.1f} ms") for share in (0.5, 0.95, 0.99)),
            ("longest", f"{times[-1] * 1e3:.1f} ms"),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cached", action="store_true", help="messages repeat themselves, and the cache may answer")
    parser.add_argument("--address", help="HOST:PORT of a service that runs; by default one is started")
    arguments = parser.parse_args()
    if arguments.address:
        asyncio.run(measure(arguments.address, arguments.users, arguments.seconds, arguments.cached))
        return
    with service() as (address, _):
        asyncio.run(measure(address, arguments.users, arguments.seconds, arguments.cached))


if __name__ == "__main__":
    main()
