"""What messages mean, and what texts say."""

from __future__ import annotations

from fastapi import APIRouter

from .dependencies import Engine
from .schemas import IntentReply, MessageRequest, SentimentReply, SummaryReply, SummaryRequest

router = APIRouter(tags=["analysis"])


@router.post("/intent")
@router.post("/api/ai/intent")
async def intent(request: MessageRequest, engine: Engine) -> IntentReply:
    """What the user wants."""
    found = (await engine.analyze(request.message)).intent
    return IntentReply.model_validate({"intent": found.label, **found.to_dict()})


@router.post("/sentiment")
@router.post("/api/ai/sentiment")
async def sentiment(request: MessageRequest, engine: Engine) -> SentimentReply:
    """How the user feels about it."""
    found = (await engine.analyze(request.message)).sentiment
    return SentimentReply.model_validate({"sentiment": found.label, **found.to_dict()})


@router.post("/summarize")
@router.post("/api/ai/summarize")
async def summarize(request: SummaryRequest, engine: Engine) -> SummaryReply:
    """The most telling sentences of a text or a dialogue."""
    options = request.model_dump(include={"sentences", "share", "method"}, exclude_none=True)
    return SummaryReply(summary=await engine.summarize(request.message, **options))
