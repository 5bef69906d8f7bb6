"""Requests and replies as the platform documents them.

What the engine has an error of its own for, such as a message that is too long, is documented here and left to the
engine.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema

MessageText = Annotated[
    str, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 4000, "pattern": r"[^\s]"})
]
AnyText = Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "pattern": r"[^\s]"})]
Id = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,256}$")]


class Strict(BaseModel):
    """A key that is not known is refused: it is a misspelt one that would otherwise do nothing."""

    model_config = ConfigDict(extra="forbid")


class Turn(Strict):
    role: Literal["system", "user", "assistant"]
    content: str


class MessageRequest(Strict):
    """The platform sends the same request to every endpoint."""

    message: MessageText
    user_id: Id | None = None
    conversation_id: Id | None = None
    context: dict[str, JsonValue] = Field(
        default={},
        description="At most 4 KiB. `previous_intent` is told to the responder.",
        examples=[{"previous_intent": "help_request"}],
    )


class ChatRequest(MessageRequest):
    history: list[Turn] = Field(
        default=[], description="Earlier turns, oldest first.", max_length=100
    )


class SummaryRequest(MessageRequest):
    """`message` is a text, or a dialogue with each turn on a line behind its speaker's name and a colon."""

    # It may be longer than a message. Callers who summarize documents like to call it `text`.
    message: AnyText = Field(validation_alias=AliasChoices("message", "text"))
    sentences: int | None = Field(default=None, ge=1, le=1000)
    share: float | None = Field(
        default=None,
        description="The share of the text's sentences, in place of `sentences`.",
        ge=0.001,
        le=1,
    )
    method: Literal["auto", "extractive", "abstractive"] | None = None


class Entity(BaseModel):
    """Offsets count code points."""

    type: str
    value: str
    confidence: float
    start: int
    end: int


class ChatReply(BaseModel):
    response: str
    confidence: float = Field(description="Of the intent.")
    intent: str
    sentiment: str
    entities: list[Entity]
    metadata: dict[str, Any] = Field(description="The analysis in full, the model, usage, cache, timings, timestamp.")


class Ranked(BaseModel):
    label: str
    confidence: float


class IntentReply(BaseModel):
    intent: str
    confidence: float
    out_of_scope: bool
    ranking: list[Ranked] = Field(description="The five best intents, best first.")


class SentimentReply(BaseModel):
    sentiment: str
    confidence: float
    scores: dict[str, float]


class SummaryReply(BaseModel):
    summary: str
