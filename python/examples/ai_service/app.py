"""The service, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from antiphon import AsyncEngine
from fastapi import FastAPI

from . import analysis, chat, errors, openai_api, operations
from .body_limit import LimitBody
from .connection_limit import ConnectionLimit
from .disconnect import CancelWhenGone
from .metrics import CountRequests, Metrics
from .settings import Settings
from .websocket import ChatSocket


def create_app(settings: Settings | None = None, **plugins: Any) -> ChatSocket:
    """The application. `plugins` are the engine's: `generators`, `stages`, `observers`, `shared_tier`."""
    settings = settings or Settings.from_env()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Opened here and not at import, so that every worker process that was forked has an engine of its own.
        async with await AsyncEngine.open(**settings.engine, **plugins) as engine:
            app.state.engine = engine
            app.state.metrics = Metrics(engine)
            yield
            # Requests have ended by now; what clients left behind may end, too.
            await engine.drain(timeout=settings.drain_seconds)

    app = FastAPI(title="AI service", version="1.0.0", lifespan=lifespan, responses=errors.RESPONSES)
    app.state.settings = settings
    app.state.connections = ConnectionLimit(settings.ws_connections_per_minute)
    for part in (chat, analysis, openai_api, operations):
        app.include_router(part.router)
    errors.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(LimitBody, max_bytes=settings.max_body_bytes)
    app.add_middleware(CancelWhenGone)
    app.add_middleware(CountRequests)
    return ChatSocket(app)
