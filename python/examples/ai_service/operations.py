"""What a platform asks about a service: its models, its health, its figures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

from .dependencies import Engine
from .metrics import Metrics

router = APIRouter(tags=["operations"])


class ModelReply(BaseModel):
    model_name: str
    version: str
    status: Literal["available", "loading", "failed"]
    task: str
    performance_metrics: dict[str, Any]
    config: Any
    fingerprint: str
    bytes: int


class HealthReply(BaseModel):
    status: Literal["healthy", "degraded", "unhealthy"]
    ready: bool
    uptime_ms: int
    error_count: int
    diagnostics: list[str]


class ReadyReply(BaseModel):
    ready: bool


@router.get("/models")
@router.get("/api/ai/models")
async def models(engine: Engine) -> list[ModelReply]:
    """The models that are loaded, with their cards."""
    return [ModelReply.model_validate(model.to_dict()) for model in await engine.models()]


@router.get("/health", responses={503: {"model": HealthReply}})
async def health(engine: Engine, response: Response) -> HealthReply:
    """How the engine is. A degraded one answers, so that nobody restarts it for that."""
    found = HealthReply.model_validate((await engine.health()).to_dict())
    if found.status == "unhealthy":
        response.status_code = 503
    return found


@router.get("/ready", responses={503: {"model": ReadyReply}})
async def ready(engine: Engine, response: Response) -> ReadyReply:
    """Whether to send requests here."""
    found = ReadyReply(ready=engine.ready())
    if not found.ready:
        response.status_code = 503
    return found


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """What Prometheus reads: the service's own figures, then the engine's."""
    figures: Metrics = request.app.state.metrics
    content_type, text = await figures.text(accept)
    return Response(text, media_type=content_type)
