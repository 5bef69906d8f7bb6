"""Memory that the service holds for WebSocket connections which say nothing (Linux)."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
from contextlib import AsyncExitStack

from service import rss_bytes, service, table
from websockets.asyncio.client import ClientConnection, connect


async def measure(address: str, pid: int, connections: int, talk: bool) -> None:
    url = f"ws://{address}/ws/ai-chat"
    async with AsyncExitStack() as stack:

        async def one_more() -> None:
            socket = await stack.enter_async_context(connect(url, compression=None, ping_interval=None))
            if talk:
                await answer(socket)

        # What the first connections cost is code and tables that all of them share.
        for _ in range(50):
            await one_more()
        before = rss_bytes(pid)
        for _ in range(connections):
            await one_more()
        await asyncio.sleep(1)
        held = rss_bytes(pid) - before
    table(
        [
            ("connections", str(connections)),
            ("before", f"{before / 2**20:.1f} MiB"),
            ("more with them", f"{held / 2**20:.1f} MiB"),
            ("per connection", f"{held / 1024 / connections:.1f} KiB"),
        ]
    )


async def answer(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"type": "chat", "message": "Hello, I need help with my account"}))
    async for event in socket:
        if json.loads(event)["type"] != "chunk":
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--talk", action="store_true", help="each asks one question first, and keeps its conversation")
    arguments = parser.parse_args()
    # A connection is a file, on both sides.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with service(WS_CONNECTIONS_PER_MINUTE="1000000", WS_IDLE_SECONDS="3600") as (address, pid):
        asyncio.run(measure(address, pid, arguments.connections, arguments.talk))


if __name__ == "__main__":
    main()
