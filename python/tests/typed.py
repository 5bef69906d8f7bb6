"""Uses of the package that type checkers have to accept, with the types that they have to see. It is checked, not run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import antiphon

if TYPE_CHECKING:
    from typing_extensions import assert_type


class Tier:
    def get(self, key: bytes) -> bytes | None:
        return None

    def put(self, key: bytes, value: bytes, ttl: float) -> None: ...

    def remove(self, key: bytes) -> None: ...


class Parrot:
    name = "parrot"

    def generate(self, request: dict[str, Any]) -> Iterator[str]:
        yield request["messages"][-1]["content"]


class Looks(antiphon.Stage):
    def before(self, request: dict[str, Any], /) -> dict[str, Any] | None:
        return None


class Whole:
    def before(self, request: dict[str, Any]) -> None: ...

    def after(self, reply: antiphon.Reply) -> str:
        return reply.response


class Listens(antiphon.Observer):
    def event(self, name: str, fields: dict[str, Any], /) -> None: ...


def waits(engine: antiphon.Engine, texts: Iterable[str]) -> None:
    antiphon.Engine(shared_tier=Tier(), generators=[Parrot()], stages=[Looks(), Whole()], observers=[Listens()], threads=1)
    assert_type(engine.analyze("a").intent.ranking[0].confidence, float)
    assert_type(engine.analyze_batch(texts), list[antiphon.Analysis])
    assert_type(engine.intent("a"), list[dict[str, Any]])
    assert_type(engine.embed("a"), list[float])
    assert_type(engine.embed(["a", "b"]), list[list[float]])
    assert_type(engine.summarize("a", sentences=2), str)
    reply = engine.process("a", max_tokens=3, on_event=lambda event: event.type == "done")
    assert_type(reply.metadata.response_generation.usage.total_tokens, int)
    for event in engine.stream("a", temperature=0.5):
        assert_type(event, antiphon.Event)
        assert_type(event.reply, "antiphon.Reply | None")
    messages = [{"role": "user", "content": "a"}]
    assert_type(engine.generate(messages).choices[0].message.content, "str | None")
    for chunk in engine.generate(messages, stream=True):
        assert_type(chunk, antiphon.ChatCompletionChunk)
    with engine.conversation(history=messages) as conversation:
        assert_type(conversation.history, list[dict[str, str]])
        assert_type(conversation.say("a"), antiphon.ReplyStream)
    assert_type(engine.cache.stats().hit_rate, float)
    try:
        engine.process("a")
    except antiphon.OverloadedError as error:
        assert_type(error.retry_after_ms, "int | None")


async def awaits(engine: antiphon.AsyncEngine) -> None:
    assert_type(await engine.analyze("a"), antiphon.Analysis)
    assert_type(await engine.embed("a"), list[float])
    assert_type(await engine.process("a"), antiphon.Reply)
    async for event in engine.stream("a"):
        assert_type(event, antiphon.Event)
    messages = [{"role": "user", "content": "a"}]
    assert_type(await engine.generate(messages), antiphon.ChatCompletion)
    async for chunk in await engine.generate(messages, stream=True):
        assert_type(chunk, antiphon.ChatCompletionChunk)
    async with engine.conversation() as conversation:
        assert_type(conversation.say("a"), antiphon.AsyncReplyStream)
