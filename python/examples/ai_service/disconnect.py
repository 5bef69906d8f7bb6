"""A client that leaves takes its work with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def unless_gone(work: Awaitable[None], gone: Awaitable[None]) -> bool:
    """Runs `work`, and cancels it when `gone` returns first. Whether the work came to its end."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone)
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return True
        return False
    finally:
        for task in (working, leaving):
            task.cancel()
        # Whoever comes after finds the work ended, and no failure goes unseen: what `gone` failed with is no news.
        await asyncio.gather(working, leaving, return_exceptions=True)


class CancelWhenGone:
    """Cancels the handler of a request when its client leaves before the answer is complete.

    Frameworks let a handler run on, since it may be in the middle of a change to a database. Here it only computes, and
    cancelling the task that awaits the engine ends the computation.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        # One message at a time: a client cannot send faster than the handler reads.
        messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)
        complete = asyncio.Event()

        async def watched_send(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                complete.set()

        async def gone() -> None:
            while (message := await receive())["type"] != "http.disconnect":
                await messages.put(message)
            # After the answer the server says the same, and the handler may have something to tidy up.
            if complete.is_set():
                await asyncio.Event().wait()

        await unless_gone(self.app(scope, messages.get, watched_send), gone())
