"""A chat over a WebSocket.

In come `{"type": "chat", "message": …, "model": …}`, out go `{"type": "chunk", "content": …}`, then `{"type": "done"}`,
or `{"type": "error", "error": …}` in place of what is missing. Messages that are sent ahead are answered in their order,
and a connection is one conversation: each answer knows the turns before it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Literal

import anyio
from antiphon import AntiphonError, AsyncConversation, AsyncEngine, InvalidArgumentError, QuotaExceededError
from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from . import errors
from .connection_limit import ConnectionLimit
from .disconnect import unless_gone
from .metrics import Metrics
from .schemas import Id, Strict
from .settings import Settings

class ChatFrame(Strict):
    type: Literal["chat"]
    message: str
    model: str | None = None
    # For the quota, where one is switched on: browsers cannot send headers with a WebSocket.
    user_id: Id | None = None


class ChatSocket:
    """Serves `/ws/ai-chat` in front of the application.

    Each layer between the server and a handler is a frame that a connection holds for as long as it lives. Through those
    of FastAPI an idle one takes 37 KiB, past them 23, of which 19 are uvicorn's.
    """

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket" or scope["path"] != PATH:
            return await self.app(scope, receive, send)
        scope["app"] = self.app
        await serve(WebSocket(scope, receive, send))


async def serve(websocket: WebSocket) -> None:
    engine: AsyncEngine = websocket.app.state.engine
    # A refusal is an HTTP answer in place of the upgrade.
    if refusal := refuse(websocket):
        return await websocket.send_denial_response(refusal)
    try:
        conversation = engine.conversation(tenant_id=websocket.headers.get("X-Tenant-ID", "default"))
    except AntiphonError as error:
        return await websocket.send_denial_response(errors.response(error))
    await websocket.accept()
    try:
        await Chat(websocket, conversation).run()
    except WebSocketDisconnect:
        # The client left while something was sent to it.
        return


def refuse(websocket: WebSocket) -> Response | None:
    """The answer to a connection that may not be."""
    settings: Settings = websocket.app.state.settings
    # Only browsers say where a page is from, and they let any page open a WebSocket to any host with a user's cookies.
    origin, host = websocket.headers.get("origin"), websocket.headers.get("host")
    allowed = {f"http://{host}", f"https://{host}", *settings.origins}
    if origin is not None and origin not in allowed and "*" not in allowed:
        return errors.response(InvalidArgumentError("`Origin` is not among the allowed ones"), 403)
    connections: ConnectionLimit = websocket.app.state.connections
    wait = connections.seconds_to_wait(websocket.client.host if websocket.client else "")
    if wait:
        what = f"{settings.ws_connections_per_minute} connections in a minute, expected no more"
        return errors.response(QuotaExceededError(what, retry_after_ms=math.ceil(wait * 1000)))
    return None


class Chat:
    """One connection. While it is idle it is one task that waits."""

    def __init__(self, websocket: WebSocket, conversation: AsyncConversation) -> None:
        self.websocket = websocket
        self.conversation = conversation
        self.metrics: Metrics = websocket.app.state.metrics
        self.idle_seconds: float = websocket.app.state.settings.ws_idle_seconds
        self.waiting: deque[str] = deque()
        self.has_left = False

    async def run(self) -> None:
        """Answers one message after the other until the client leaves."""
        while (text := await self.next_message()) is not None:
            # Listening meanwhile is how we learn that the client has left.
            if not await unless_gone(self.answer(text), self.gone()):
                return

    async def next_message(self) -> str | None:
        """None when the client has left, or was silent for so long that it is sent away."""
        if self.has_left:
            return None
        if self.waiting:
            return self.waiting.popleft()
        with anyio.move_on_after(self.idle_seconds):
            return await self.receive()
        await self.websocket.close(CLOSE_NORMAL, "idle")
        return None

    async def gone(self) -> None:
        """Puts messages that are sent ahead aside, until the client leaves."""
        while (text := await self.receive()) is not None:
            self.waiting.append(text)
            if len(self.waiting) > MAX_WAITING:
                self.has_left = True
                return await self.websocket.close(CLOSE_POLICY, "too many messages were sent ahead")

    async def receive(self) -> str | None:
        message = await self.websocket.receive()
        if message["type"] == "websocket.disconnect":
            self.has_left = True
            return None
        return message.get("text") or (message.get("bytes") or b"").decode(errors="replace")

    async def answer(self, text: str) -> None:
        started, outcome = time.perf_counter(), "cancelled"
        try:
            frame = ChatFrame.model_validate_json(text)
            options = frame.model_dump(include={"model", "user_id"}, exclude_none=True)
            async with self.conversation.say(frame.message, **options) as events:
                async for event in events:
                    if event.type == "chunk":
                        await self.websocket.send_json({"type": "chunk", "content": event.content})
            await self.websocket.send_json({"type": "done"})
            outcome = "success"
        except (AntiphonError, ValidationError) as failure:
            error = errors.from_exception(failure)
            outcome = error.kind
            await self.websocket.send_json({"type": "error", "error": error.to_dict()})
        finally:
            self.metrics.count(PATH, outcome, time.perf_counter() - started)


PATH = "/ws/ai-chat"

# Messages that a client may send ahead of their answers.
MAX_WAITING = 16

# Codes of RFC 6455.
CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
