"""Answers to messages."""

from __future__ import annotations

from fastapi import APIRouter

from .dependencies import Engine, Tenant
from .schemas import ChatReply, ChatRequest

router = APIRouter(tags=["chat"])


# One function for both: the platform's generator had to be told the intent, and so `/generate-response` came after
# `/intent`. Here the analysis belongs to the answer, and a caller that wants only `response` reads only that.
@router.post("/process")
@router.post("/generate-response")
@router.post("/api/ai/process-message")
@router.post("/api/ai/generate-response")
async def process(request: ChatRequest, engine: Engine, tenant: Tenant = "default") -> ChatReply:
    """Understands a message and answers it."""
    reply = await engine.process(**request.model_dump(exclude_none=True), tenant_id=tenant)
    return ChatReply.model_validate(reply.to_dict())
