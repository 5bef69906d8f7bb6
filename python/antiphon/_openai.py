"""The shape of OpenAI's chat completions, around the engine's own requests and replies."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional, cast

from . import _requests
from ._errors import InvalidArgumentError
from ._results import Event, Json, Reply, Result, TokenLogprob


class ChatMessage(Result):
    """A turn: of a completion the whole answer, of a chunk a piece of it."""

    __slots__ = ()

    @property
    def role(self) -> str | None:
        """``assistant``; of a chunk only in the first one."""
        return cast(Optional[str], self._json.get("role"))

    @property
    def content(self) -> str | None:
        """The text."""
        return cast(Optional[str], self._json.get("content"))


class ChatLogprob(Result):
    """How likely a token was."""

    __slots__ = ()

    @property
    def token(self) -> str:
        """Its text, with replacement characters where it is part of a code point."""
        return cast(str, self._json["token"])

    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability."""
        return cast(float, self._json["logprob"])

    @property
    def bytes(self) -> list[int] | None:
        """Its text in UTF-8; None where that is not known."""
        value = self._json["bytes"]
        return None if value is None else list(value)

    @property
    def top_logprobs(self) -> list[ChatLogprob]:
        """The likeliest tokens at this place, best first."""
        return [ChatLogprob(top) for top in self._json.get("top_logprobs", ())]


class ChatLogprobs(Result):
    """How likely the tokens of an answer were."""

    __slots__ = ()

    @property
    def content(self) -> list[ChatLogprob]:
        """Token by token."""
        return [ChatLogprob(token) for token in self._json["content"]]


class _Choice(Result):
    """What an answer and a piece of one have in common."""

    __slots__ = ()

    @property
    def index(self) -> int:
        """0."""
        return cast(int, self._json["index"])

    @property
    def logprobs(self) -> ChatLogprobs | None:
        """How likely its tokens were, if that was asked for."""
        value = self._json["logprobs"]
        return None if value is None else ChatLogprobs(value)


class ChatChoice(_Choice):
    """The one answer of a completion."""

    __slots__ = ()

    @property
    def message(self) -> ChatMessage:
        """The answer."""
        return ChatMessage(self._json["message"])

    @property
    def finish_reason(self) -> str:
        """``stop`` or ``length``, the words that OpenAI has; ``reply.finish_reason`` has the engine's own."""
        return cast(str, self._json["finish_reason"])


class ChatChunkChoice(_Choice):
    """A piece of the one answer."""

    __slots__ = ()

    @property
    def delta(self) -> ChatMessage:
        """The piece."""
        return ChatMessage(self._json["delta"])

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in its last chunk."""
        return cast(Optional[str], self._json["finish_reason"])


class ChatUsage(Result):
    """Tokens read and written."""

    __slots__ = ()

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return cast(int, self._json["prompt_tokens"])

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer."""
        return cast(int, self._json["completion_tokens"])

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return cast(int, self._json["total_tokens"])

    @property
    def prompt_tokens_details(self) -> Json:
        """``{"cached_tokens"}``: tokens of the prompt that were not computed again."""
        return cast(Json, self["prompt_tokens_details"])


class _Completion(Result):
    """What a completion and its chunks have in common."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """A name of the completion, the same in all its chunks."""
        return cast(str, self._json["id"])

    @property
    def object(self) -> str:
        """``chat.completion`` or ``chat.completion.chunk``."""
        return cast(str, self._json["object"])

    @property
    def created(self) -> int:
        """When, in seconds since 1970, the same in all its chunks."""
        return cast(int, self._json["created"])

    @property
    def model(self) -> str:
        """Name of the responder."""
        return cast(str, self._json["model"])


class ChatCompletion(_Completion):
    """An answer in the shape of OpenAI's ``chat.completion``."""

    __slots__ = ("_reply",)
    _reply: Reply

    def __init__(self, value: Mapping[str, Any], reply: Reply) -> None:
        super().__init__(value)
        object.__setattr__(self, "_reply", reply)

    @property
    def choices(self) -> list[ChatChoice]:
        """The one answer."""
        return [ChatChoice(choice) for choice in self._json["choices"]]

    @property
    def usage(self) -> ChatUsage:
        """Tokens read and written."""
        return ChatUsage(self._json["usage"])

    @property
    def reply(self) -> Reply:
        """The engine's own reply, with timings, where it came from, and what is needed to get it again. Not in ``to_dict()``."""
        return self._reply

    def __reduce__(self) -> Any:
        return ChatCompletion, (self._json, self._reply)


class ChatCompletionChunk(_Completion):
    """A piece of an answer in the shape of OpenAI's ``chat.completion.chunk``."""

    __slots__ = ()

    @property
    def choices(self) -> list[ChatChunkChoice]:
        """The one piece; none in the chunk with the usage."""
        return [ChatChunkChoice(choice) for choice in self._json["choices"]]

    @property
    def usage(self) -> ChatUsage | None:
        """Tokens read and written: of the last chunk, if ``stream_options={"include_usage": True}``."""
        value = self._json.get("usage")
        return None if value is None else ChatUsage(value)


class Asked(NamedTuple):
    """A request in OpenAI's words, understood."""

    request: bytes
    model: str
    has_logprobs: bool
    include_usage: bool

    @classmethod
    def of(
        cls,
        messages: Iterable[Mapping[str, Any]] | None,
        prompt: str | None,
        stream: bool,
        on_event: object,
        tenant_id: str | None,
        user_id: str | None,
        conversation_id: str | None,
        options: Mapping[str, Any],
    ) -> Asked:
        """Understands a request."""
        if stream and on_event is not None:
            raise InvalidArgumentError("`on_event` is given with stream=True, expected one of them")
        chosen = _requests.given(options)
        user = chosen.pop("user", None)
        include_usage = _include_usage(chosen.pop("stream_options", None), stream)
        if chosen.pop("n", 1) != 1:
            raise InvalidArgumentError("`n` is not 1, expected one answer a request")
        _rename(chosen, "max_completion_tokens", "max_tokens")
        _set_logprobs(chosen)
        if isinstance(chosen.get("stop"), str):
            chosen["stop"] = [chosen["stop"]]
        request = _requests.generate(
            messages,
            prompt,
            chosen,
            tenant_id=tenant_id,
            user_id=user if user_id is None else user_id,
            conversation_id=conversation_id,
        )
        return cls(request, chosen.get("model", "responder"), "logprobs" in chosen, include_usage)

    def answer(self) -> Answer:
        """An answer to it, of which nothing has come yet."""
        return Answer(self)


class Answer:
    """An answer that comes in events, told in OpenAI's words."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._id, self._created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        self._tokens: list[Json] = []
        self.reply: Reply | None = None

    def hear(self, event: Event) -> None:
        """Takes in an event."""
        self._tokens.extend(_shown(token) for token in event.logprobs or ())
        if event.reply is not None:
            self.reply = event.reply

    def whole(self, reply: Reply) -> ChatCompletion:
        """The whole of an answer that came at once."""
        self.reply = reply
        return self.completion()

    def completion(self) -> ChatCompletion:
        """The whole."""
        if self.reply is None:
            raise RuntimeError("a stream ends with a reply")
        reply = self.reply
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.response, "refusal": None},
            "finish_reason": _FINISH_REASONS[reply.finish_reason],
            "logprobs": {"content": self._tokens, "refusal": None} if self._asked.has_logprobs else None,
        }
        return ChatCompletion(
            {
                "id": self._id,
                "object": "chat.completion",
                "created": self._created,
                "model": reply.metadata.response_generation.model,
                "choices": [choice],
                "usage": _usage(reply),
            },
            reply,
        )

    def opening(self) -> ChatCompletionChunk:
        """The chunk before the first word."""
        return self._chunk({"role": "assistant", "content": ""})

    def chunks(self, event: Event) -> Iterable[ChatCompletionChunk]:
        """The chunks that an event is."""
        self.hear(event)
        if event.type == "chunk":
            yield self._chunk({"content": event.content}, logprobs=event.logprobs)
        if event.reply is not None:
            yield self._chunk({}, finish_reason=_FINISH_REASONS[event.reply.finish_reason])
            if self._asked.include_usage:
                yield ChatCompletionChunk({**self._head(), "choices": [], "usage": _usage(event.reply)})

    def _chunk(
        self, delta: Json, *, finish_reason: str | None = None, logprobs: list[TokenLogprob] | None = None
    ) -> ChatCompletionChunk:
        shown = None if logprobs is None else {"content": [_shown(token) for token in logprobs], "refusal": None}
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": shown}
        usage = {"usage": None} if self._asked.include_usage else {}
        return ChatCompletionChunk({**self._head(), "choices": [choice], **usage})

    def _head(self) -> Json:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._asked.model,
        }


#: OpenAI has no words for an answer that its reader or its deadline cut short.
_FINISH_REASONS = {"stop": "stop", "length": "length", "cancelled": "stop", "deadline": "length"}


def _include_usage(stream_options: Any, stream: bool) -> bool:
    if stream_options is None:
        return False
    if not stream:
        raise InvalidArgumentError("`stream_options` is given without stream=True, expected both or neither")
    if not isinstance(stream_options, Mapping) or stream_options.keys() - {"include_usage"}:
        raise InvalidArgumentError("`stream_options` has other keys than include_usage, expected that one")
    return bool(stream_options.get("include_usage", False))


def _set_logprobs(options: Json) -> None:
    """OpenAI says whether and how many; the engine takes how many."""
    top = options.pop("top_logprobs", None)
    wanted = options.get("logprobs")
    if wanted is True:
        options["logprobs"] = 0 if top is None else top
    elif wanted is False or wanted is None:
        options.pop("logprobs", None)
        if top is not None:
            raise InvalidArgumentError("`top_logprobs` is given without logprobs=True, expected both or neither")
    elif top is not None:
        raise InvalidArgumentError("`logprobs` and `top_logprobs` are both numbers, expected one of them")


def _rename(options: Json, other: str, own: str) -> None:
    if other in options:
        if own in options:
            raise InvalidArgumentError(f"`{other}` and `{own}` are both given, expected one of them")
        options[own] = options.pop(other)


def _shown(token: TokenLogprob) -> Json:
    def shown(one: TokenLogprob) -> Json:
        # A token that is part of a character has no text of its own, and its bytes are not told.
        text = None if "\ufffd" in one.token else list(one.token.encode())
        return {"token": one.token, "logprob": one.logprob, "bytes": text}

    return {**shown(token), "top_logprobs": [shown(top) for top in token.top]}


def _usage(reply: Reply) -> Json:
    usage = reply.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
