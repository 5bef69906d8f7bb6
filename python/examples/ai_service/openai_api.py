"""OpenAI's chat completions, so that its client libraries work with `base_url="http://localhost:3007/v1"`."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from antiphon import AntiphonError, AsyncChatStream, ChatCompletion, ChatCompletionChunk
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from .dependencies import Engine, Tenant
from .schemas import Id, Strict

router = APIRouter(prefix="/v1", tags=["openai"])

# Models have no date; their versions are in `/models`.
STARTED = int(time.time())


class TextPart(Strict):
    type: Literal["text"]
    text: str


class OpenAIMessage(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def turn(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(Strict):
    include_usage: bool = False


Stop = Annotated[str, Field(min_length=1, max_length=256)]
TokenId = Annotated[str, Field(pattern="^[0-9]{1,9}$")]


class CompletionRequest(Strict):
    messages: list[OpenAIMessage] = Field(min_length=1, max_length=100)
    model: str | None = Field(default=None, description="A name from `/v1/models`.")
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=1e-6, le=1)
    n: Literal[1] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: int | None = Field(default=None, ge=0, le=2**64 - 1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    user: Id | None = None

    def arguments(self) -> dict[str, Any]:
        """What the engine is asked; it knows OpenAI's names."""
        return {**self.model_dump(exclude_none=True), "messages": [message.turn() for message in self.messages]}


class Completion(BaseModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int = STARTED
    owned_by: str = "antiphon"


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


@router.post("/chat/completions", responses={200: {"model": Completion, "content": {"text/event-stream": {}}}})
async def chat_completions(
    request: CompletionRequest, http: Request, engine: Engine, tenant: Tenant = "default"
) -> Response:
    """Continues a chat, whole or as it comes."""
    answer = await engine.generate(**request.arguments(), tenant_id=tenant)
    if isinstance(answer, ChatCompletion):
        return JSONResponse(answer.to_dict())
    # The first chunk only says who speaks. Until there is a second one, an error can still become a status.
    begun = [await anext(answer), await anext(answer)]
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(frames(http, begun, answer), media_type="text/event-stream", headers=headers)


async def frames(http: Request, begun: list[ChatCompletionChunk], rest: AsyncChatStream) -> AsyncIterator[str]:
    """The chunks as server-sent events. Leaving early closes the stream, and that ends the work."""
    async with rest:
        for chunk in begun:
            yield frame(chunk.to_dict())
        try:
            async for chunk in rest:
                yield frame(chunk.to_dict())
        except AntiphonError as error:
            http.state.outcome = error.kind
            yield frame({"error": error.to_dict()})
            return
    yield "data: [DONE]\n\n"


def frame(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@router.get("/models")
async def models(engine: Engine) -> ModelList:
    """The models that can continue a chat."""
    names = [model.model_name for model in await engine.models() if model.task == "generation"]
    return ModelList(data=[ModelEntry(id=name) for name in names])
