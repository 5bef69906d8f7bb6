"""What handlers ask for: the engine, and whose request it is."""

from __future__ import annotations

from typing import Annotated

from antiphon import AsyncEngine
from fastapi import Depends, Header
from starlette.requests import HTTPConnection


async def engine_of(connection: HTTPConnection) -> AsyncEngine:
    # `async`, or the framework would run it on a thread of its own for each request.
    engine: AsyncEngine = connection.app.state.engine
    return engine


Engine = Annotated[AsyncEngine, Depends(engine_of)]

# Tenants share no answers, and each has a quota of its own. The service believes the header: a gateway that knows who
# calls has to set it, whatever the client sent.
Tenant = Annotated[str, Header(alias="X-Tenant-ID", pattern="^[!-~]{1,256}$")]
