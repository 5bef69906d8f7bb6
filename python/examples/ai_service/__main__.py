"""`python -m ai_service` serves on port 3007."""

from __future__ import annotations

from typing import Any

import uvicorn

from .app import create_app
from .settings import Settings


def serve(settings: Settings, **plugins: Any) -> None:
    uvicorn.run(
        create_app(settings, **plugins),
        host=settings.host,
        port=settings.port,
        # Chat messages are short, and a compressor's tables are larger than all else that an idle connection holds.
        ws_per_message_deflate=False,
        ws_max_size=settings.max_body_bytes,
        # Answers that are being written when the service is told to stop may end until then.
        timeout_graceful_shutdown=settings.drain_seconds,
    )


if __name__ == "__main__":
    serve(Settings.from_env())
