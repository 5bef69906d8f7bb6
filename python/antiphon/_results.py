"""What a message gives: frozen views of the engine's JSON.

Every result has its fields as attributes, ``result["key"]`` for them all and for what a later engine adds, and ``to_dict()``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional, TypeVar, cast

if TYPE_CHECKING:
    from ._types import EventParts

Json = dict[str, Any]
_R = TypeVar("_R", bound="Result")


class Result:
    """A frozen view of a JSON object."""

    __slots__ = ("_json",)
    _json: Json

    def __init__(self, value: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_json", dict(value))

    @classmethod
    def from_json(cls: type[_R], text: str) -> _R:
        """Reads a result from JSON text, as it was written by ``json.dumps(result.to_dict())``."""
        return cls(json.loads(text))

    def to_dict(self) -> Json:
        """The result as JSON has it: dicts, lists, strings, numbers. The caller's own."""
        return cast(Json, _copied(self._json))

    def __getitem__(self, key: str) -> Any:
        return _copied(self._json[key])

    def __contains__(self, key: object) -> bool:
        return key in self._json

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and type(other) is type(self) and self._json == other._json

    def __hash__(self) -> int:
        return hash((type(self), json.dumps(self._json, sort_keys=True)))

    def __repr__(self) -> str:
        fields = ", ".join(f"{key}={value!r}" for key, value in self._json.items())
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[type[Result], tuple[Json]]:
        return type(self), (self._json,)


class Ranked(Result):
    """A label and its probability."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """The label."""
        return cast(str, self._json["label"])

    @property
    def confidence(self) -> float:
        """Its calibrated probability, 0 to 1."""
        return cast(float, self._json["confidence"])


class Intent(Result):
    """What the user wants."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """The best label, or ``out_of_scope``."""
        return cast(str, self._json["label"])

    @property
    def confidence(self) -> float:
        """Calibrated probability of the label, 0 to 1. Out of scope: one minus that of the best label in scope."""
        return cast(float, self._json["confidence"])

    @property
    def out_of_scope(self) -> bool:
        """Whether no known intent is likely enough."""
        return cast(bool, self._json["out_of_scope"])

    @property
    def ranking(self) -> list[Ranked]:
        """The five best labels in scope, best first."""
        return [Ranked(ranked) for ranked in self._json["ranking"]]


class Sentiment(Result):
    """How the user feels about it."""

    __slots__ = ()

    @property
    def label(self) -> str:
        """``negative``, ``neutral`` or ``positive``."""
        return cast(str, self._json["label"])

    @property
    def confidence(self) -> float:
        """Probability of the label, 0 to 1."""
        return cast(float, self._json["confidence"])

    @property
    def scores(self) -> dict[str, float]:
        """Probability of each label."""
        return dict(self._json["scores"])


class Entity(Result):
    """Something a message names."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """What it is: ``person``, ``order_id``, ``email``, ..."""
        return cast(str, self._json["type"])

    @property
    def value(self) -> str:
        """The text: ``message[start:end]``."""
        return cast(str, self._json["value"])

    @property
    def confidence(self) -> float:
        """How sure the analyst is, 0 to 1."""
        return cast(float, self._json["confidence"])

    @property
    def start(self) -> int:
        """Where it begins in the message, in code points, as Python counts."""
        return cast(int, self._json["start"])

    @property
    def end(self) -> int:
        """Where it ends, in code points."""
        return cast(int, self._json["end"])


class Analysis(Result):
    """What a message means."""

    __slots__ = ()

    @property
    def intent(self) -> Intent:
        """What the user wants."""
        return Intent(self._json["intent"])

    @property
    def sentiment(self) -> Sentiment:
        """How the user feels about it."""
        return Sentiment(self._json["sentiment"])

    @property
    def entities(self) -> list[Entity]:
        """The things it names, in order of position."""
        return [Entity(entity) for entity in self._json["entities"]]

    @property
    def tokens(self) -> int:
        """Tokens the encoder read, its special tokens included."""
        return cast(int, self._json["tokens"])

    @property
    def truncated(self) -> bool:
        """Whether the message was longer than the encoder can read and its end was left out."""
        return cast(bool, self._json["truncated"])


class Usage(Result):
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
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were not computed again."""
        return cast(int, self._json["cached_tokens"])

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return cast(int, self._json["total_tokens"])


class Timings(Result):
    """Where the time went, in milliseconds."""

    __slots__ = ()

    @property
    def queue(self) -> float:
        """Waiting for admission."""
        return cast(float, self._json["queue"])

    @property
    def analysis(self) -> float:
        """The encoder's pass."""
        return cast(float, self._json["analysis"])

    @property
    def prefill(self) -> float:
        """Reading the prompt."""
        return cast(float, self._json["prefill"])

    @property
    def first_token(self) -> float:
        """From submission to the first token."""
        return cast(float, self._json["first_token"])

    @property
    def decode(self) -> float:
        """Writing the answer."""
        return cast(float, self._json["decode"])

    @property
    def total(self) -> float:
        """From submission to the end."""
        return cast(float, self._json["total"])


class Repro(Result):
    """What is needed to get the same answer again."""

    __slots__ = ()

    @property
    def engine(self) -> str:
        """Version of the library."""
        return cast(str, self._json["engine"])

    @property
    def models(self) -> dict[str, str]:
        """Fingerprint of each model that took part."""
        return dict(self._json["models"])

    @property
    def seed(self) -> int | None:
        """The seed of a sampled answer."""
        return cast(Optional[int], self._json["seed"])


class Generation(Result):
    """The making of an answer."""

    __slots__ = ()

    @property
    def model(self) -> str:
        """Name of the responder."""
        return cast(str, self._json["model"])

    @property
    def finish_reason(self) -> str:
        """Why the answer ended: ``stop``, ``length``, ``cancelled`` or ``deadline``."""
        return cast(str, self._json["finish_reason"])

    @property
    def usage(self) -> Usage:
        """Tokens read and written."""
        return Usage(self._json["usage"])

    @property
    def cache(self) -> str:
        """Where the answer came from: ``miss``, ``hit``, ``joined`` or ``shared``."""
        return cast(str, self._json["cache"])

    @property
    def degraded(self) -> str | None:
        """What stood in for the responder, if something had to: ``cache`` or ``template``."""
        return cast(Optional[str], self._json["degraded"])

    @property
    def timings_ms(self) -> Timings:
        """Where the time went, in milliseconds."""
        return Timings(self._json["timings_ms"])

    @property
    def repro(self) -> Repro:
        """What is needed to get the same answer again."""
        return Repro(self._json["repro"])


class NlpProcessing(Result):
    """What the encoder read."""

    __slots__ = ()

    @property
    def tokens(self) -> int:
        """Tokens, special ones included."""
        return cast(int, self._json["tokens"])

    @property
    def truncated(self) -> bool:
        """Whether the end of the message was left out."""
        return cast(bool, self._json["truncated"])


class Metadata(Result):
    """How a reply came about. The analysis is None where nothing was analysed."""

    __slots__ = ()

    @property
    def nlp_processing(self) -> NlpProcessing | None:
        """What the encoder read."""
        value = self._json["nlp_processing"]
        return None if value is None else NlpProcessing(value)

    @property
    def intent_analysis(self) -> Intent | None:
        """The intent in full."""
        value = self._json["intent_analysis"]
        return None if value is None else Intent(value)

    @property
    def sentiment_analysis(self) -> Sentiment | None:
        """The sentiment in full."""
        value = self._json["sentiment_analysis"]
        return None if value is None else Sentiment(value)

    @property
    def response_generation(self) -> Generation:
        """The answer's making."""
        return Generation(self._json["response_generation"])

    @property
    def timestamp(self) -> str:
        """When the reply was made, RFC 3339 in UTC with milliseconds."""
        return cast(str, self._json["timestamp"])


class Reply(Result):
    """An answer, in the shape of the AI service that hosts already serve."""

    __slots__ = ()

    @property
    def response(self) -> str:
        """The answer."""
        return cast(str, self._json["response"])

    @property
    def confidence(self) -> float:
        """The intent's confidence, 0 to 1; 0 where nothing was analysed."""
        return cast(float, self._json["confidence"])

    @property
    def intent(self) -> str:
        """The intent's label; empty where nothing was analysed."""
        return cast(str, self._json["intent"])

    @property
    def sentiment(self) -> str:
        """The sentiment's label; empty where nothing was analysed."""
        return cast(str, self._json["sentiment"])

    @property
    def entities(self) -> list[Entity]:
        """The things the message names."""
        return [Entity(entity) for entity in self._json["entities"]]

    @property
    def metadata(self) -> Metadata:
        """How the reply came about."""
        return Metadata(self._json["metadata"])

    @property
    def finish_reason(self) -> str:
        """Why the answer ended: ``stop``, ``length``, ``cancelled`` or ``deadline``."""
        return self.metadata.response_generation.finish_reason

    @property
    def usage(self) -> Usage:
        """Tokens read and written."""
        return self.metadata.response_generation.usage

    @property
    def analysis(self) -> Analysis | None:
        """The analysis the reply was made from; None where nothing was analysed."""
        metadata = self._json["metadata"]
        read = metadata["nlp_processing"]
        if read is None:
            return None
        return Analysis(
            {
                "intent": metadata["intent_analysis"],
                "sentiment": metadata["sentiment_analysis"],
                "entities": self._json["entities"],
                "tokens": read["tokens"],
                "truncated": read["truncated"],
            }
        )


class TokenLogprob(Result):
    """How likely a token of the answer was."""

    __slots__ = ()

    @property
    def id(self) -> int:
        """The token's id."""
        return cast(int, self._json["id"])

    @property
    def token(self) -> str:
        """Its text, with replacement characters where it is part of a code point."""
        return cast(str, self._json["token"])

    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability before temperature and penalties."""
        return cast(float, self._json["logprob"])

    @property
    def top(self) -> list[TokenLogprob]:
        """The likeliest tokens at this place, best first."""
        return [TokenLogprob(top) for top in self._json.get("top", ())]


class Event(Result):
    """One step of a stream: one ``analysis``, then ``chunk``s, then one ``done``.

    What an event of its type does not have is None; ``content`` is empty then, so that ``print(event.content, end="")`` is
    right for every event.
    """

    __slots__ = ()

    @property
    def type(self) -> str:
        """``analysis``, ``chunk`` or ``done``."""
        return cast(str, self._json["type"])

    @property
    def content(self) -> str:
        """The text of a chunk."""
        return cast(str, self._json.get("content", ""))

    @property
    def index(self) -> int | None:
        """The number of a chunk, from 0."""
        return cast(Optional[int], self._json.get("index"))

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """Log-probabilities of a chunk's tokens, if they were asked for."""
        logprobs = self._json.get("logprobs")
        return None if logprobs is None else [TokenLogprob(token) for token in logprobs]

    @property
    def analysis(self) -> Analysis | None:
        """What the message means, of the event ``analysis``."""
        analysis = self._json.get("analysis")
        return None if analysis is None else Analysis(analysis)

    @property
    def reply(self) -> Reply | None:
        """The whole reply, of the event ``done``."""
        reply = self._json.get("reply")
        return None if reply is None else Reply(reply)


def event_from(parts: EventParts) -> Event:
    """An event of the engine's."""
    kind, content, index, text = parts
    if kind == "chunk":
        value: Json = {"type": kind, "content": content, "index": index}
        if text is not None:
            value["logprobs"] = json.loads(text)
        return Event(value)
    return Event({"type": kind, _PAYLOAD[kind]: json.loads(text or "null")})


_PAYLOAD = {"analysis": "analysis", "done": "reply"}


def _copied(value: Any) -> Any:
    """A copy that a caller may change."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    return value
