"""What can be set, all from the environment and all in this file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, Json


class Settings(BaseModel):
    """Each field is read from the variable of its alias. A value that does not fit keeps the service from starting."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    # The service believes what `X-Tenant-ID` says, so by default only this machine can reach it.
    host: str = Field("127.0.0.1", alias="HOST")
    port: int = Field(3007, alias="PORT", ge=0, le=65535)

    # Replicas that name the same Redis share their answers. The secret seals them: without it, whoever can write to
    # that Redis can answer in the service's name.
    redis_url: str | None = Field(None, alias="REDIS_URL")
    redis_secret: str | None = Field(None, alias="REDIS_SECRET", min_length=16)

    # Answers per tenant and user. Off by default, because a gateway in front often counts already.
    rate_limit: bool = Field(False, alias="RATE_LIMIT")
    rate_limit_requests: int = Field(10, alias="RATE_LIMIT_REQUESTS", ge=1)
    rate_limit_seconds: int = Field(60, alias="RATE_LIMIT_SECONDS", ge=1)

    # Pages that may open a WebSocket from elsewhere, such as `https://shop.example, https://www.shop.example`.
    allowed_origins: str = Field("", alias="ALLOWED_ORIGINS")
    ws_connections_per_minute: int = Field(30, alias="WS_CONNECTIONS_PER_MINUTE", ge=1)
    ws_idle_seconds: float = Field(30, alias="WS_IDLE_SECONDS", gt=0)

    max_body_bytes: int = Field(1 << 20, alias="MAX_BODY_BYTES", ge=1)
    drain_seconds: int = Field(10, alias="DRAIN_SECONDS", ge=0)

    # Everything else that the engine can be told, as a JSON object: `{"threads": 2, "responder": "/models/mine.gguf"}`.
    engine_config: Json[dict[str, Any]] = Field({}, alias="ENGINE_CONFIG")

    @classmethod
    def from_env(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        return cls.model_validate(environment)

    @property
    def origins(self) -> frozenset[str]:
        return frozenset(origin for part in self.allowed_origins.split(",") if (origin := part.strip()))

    @property
    def engine(self) -> dict[str, Any]:
        """The engine's configuration. What `ENGINE_CONFIG` says goes before what the other variables say."""
        config: dict[str, Any] = {}
        if self.redis_url:
            config["cache"] = {"shared_tier": self.redis_url}
            if self.redis_secret:
                config["cache"]["shared_tier_key"] = self.redis_secret
        if self.rate_limit:
            config["quota"] = {"requests": self.rate_limit_requests, "window_ms": self.rate_limit_seconds * 1000}
        # `cache` is an object in both: a bound set by hand must not switch the shared tier off.
        cache = {**config.get("cache", {}), **self.engine_config.get("cache", {})}
        return {**config, **self.engine_config, **({"cache": cache} if cache else {})}
