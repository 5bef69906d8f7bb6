"""The engine for programs that wait."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, overload

from . import _native, _openai, _plugins, _requests
from ._errors import ClosedError
from ._lifetime import Owned
from ._openai import ChatCompletion, ChatCompletionChunk
from ._reports import CacheStats, Diagnosis, Health, Model
from ._results import Analysis, Entity, Event, Json, Reply, event_from

if TYPE_CHECKING:
    from typing import Literal

OnEvent = Callable[[Event], Any]
Turns = Iterable[Mapping[str, str]]


class Engine:
    """Conversational AI inside this process. Any number of threads may use one engine.

    Keywords are the configuration: ``threads=1``, ``responder="/models/qwen.gguf"``, ``cache={"max_entries": 10}``, ...; an unknown
    one is an :class:`InvalidConfigError` that names it. ``shared_tier``, ``generators``, ``stages`` and ``observers`` are what the
    host puts into it.

    No call holds the interpreter's lock while it computes or waits, and Ctrl-C ends one that waits. Use it as a context manager,
    or call :meth:`close`; one that is forgotten closes when it is collected.

    >>> with Engine() as engine:
    ...     engine.analyze("Where is order 4711?").intent.label
    'track_order'
    """

    def __init__(
        self,
        *,
        shared_tier: _plugins.SharedTier | None = None,
        generators: Iterable[_plugins.Generator] = (),
        stages: Iterable[_plugins.Stage] = (),
        observers: Iterable[_plugins.Observer] = (),
        **config: Any,
    ) -> None:
        parts = _plugins.parts(shared_tier, generators, stages, observers)
        self._owned = Owned(_native.Engine(_requests.encoded("configuration", config), parts))
        _plugins.serve(self._native)

    @property
    def _native(self) -> _native.Engine:
        return self._owned.native

    @property
    def cache(self) -> Cache:
        """The response cache."""
        return Cache(self)

    def analyze(self, text: str) -> Analysis:
        """What a text means.

        Raises :class:`InvalidTextError` for a text with nothing in it, :class:`InputTooLongError` for one above the limit.
        """
        return Analysis.from_json(self._native.analyze(_requests.text("text", text)).wait())

    def analyze_batch(self, texts: Iterable[str]) -> list[Analysis]:
        """What texts mean, in as few passes as they fit in. One bad text fails the call, which names its index."""
        return analyses(self._native.analyze_batch(_requests.texts(texts)).wait())

    def intent(self, text: str) -> list[Json]:
        """What the user wants: ``[{"label", "score"}]``, best first."""
        return intents(self.analyze(text))

    def sentiment(self, text: str) -> list[Json]:
        """How the user feels about it: ``[{"label", "score"}]``, best first."""
        return sentiments(self.analyze(text))

    def entities(self, text: str) -> list[Entity]:
        """The things a text names, in order of position."""
        return self.analyze(text).entities

    @overload
    def embed(self, text: str) -> list[float]: ...  # type: ignore[overload-overlap]
    @overload
    def embed(self, text: Iterable[str]) -> list[list[float]]: ...
    def embed(self, text: str | Iterable[str]) -> list[float] | list[list[float]]:
        """The vector of a text, or those of a list: unit length, near in meaning is near in angle."""
        if isinstance(text, str):
            return first(self._native.embed([_requests.text("text", text)]).wait())
        return vectors(self._native.embed(_requests.texts(text)).wait())

    def summarize(
        self, text: str, *, sentences: int | None = None, share: float | None = None, method: str | None = None
    ) -> str:
        """A summary of a text or a dialogue of any length.

        So many ``sentences`` (3, unless said otherwise), or a ``share`` of the text's. ``method`` is ``extractive``, ``abstractive``
        or ``auto``.
        """
        options = _requests.encoded(
            "summary options", _requests.given({"sentences": sentences, "share": share, "method": method})
        )
        summary: str = self._native.summarize(_requests.text("text", text), options).wait()
        return summary

    def process(
        self,
        message: str,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        history: Turns | None = None,
        context: Mapping[str, Any] | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> Reply:
        """Understands and answers a message.

        ``on_event`` is called on this thread with every :class:`Event`. When it returns something true the work stops, and the
        reply has what there was, its finish reason being ``cancelled``; what it raises comes out of this call.

        ``options`` are ``max_tokens``, ``temperature``, ``seed``, ``stop``, ``deadline_ms``, ``cache``, ``model``, ...
        """
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        if on_event is None:
            return Reply.from_json(self._native.process(request).wait())
        return pushed(ReplyStream(self, self._native.stream(request)), on_event)

    def stream(
        self,
        message: str,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        history: Turns | None = None,
        context: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ReplyStream:
        """Understands and answers a message, as it comes: an iterator of :class:`Event`. Returns at once.

        >>> with Engine() as engine, engine.stream("Hello") as events:
        ...     answer = "".join(event.content for event in events)
        """
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        return ReplyStream(self, self._native.stream(request))

    @overload
    def generate(
        self,
        messages: Iterable[Mapping[str, Any]] | None = None,
        *,
        stream: Literal[False] = False,
        prompt: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> ChatCompletion: ...
    @overload
    def generate(
        self,
        messages: Iterable[Mapping[str, Any]] | None = None,
        *,
        stream: Literal[True],
        prompt: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        **options: Any,
    ) -> ChatStream: ...
    @overload
    def generate(
        self,
        messages: Iterable[Mapping[str, Any]] | None = None,
        *,
        stream: bool,
        prompt: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> ChatCompletion | ChatStream: ...
    def generate(
        self,
        messages: Iterable[Mapping[str, Any]] | None = None,
        *,
        stream: bool = False,
        prompt: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> ChatCompletion | ChatStream:
        """Continues chat turns, without analysis, in the shape of OpenAI's chat completions.

        ``messages`` are ``{"role": "system" | "user" | "assistant", "content": "..."}``; ``prompt`` is a text to continue as it stands,
        in their place. With ``stream=True`` it gives the chunks as they come. Options of OpenAI's that mean the same as one of ours
        are understood: ``max_completion_tokens``, ``top_logprobs``, ``user``, ``stream_options``, ``n=1``.
        """
        asked = _openai.Asked.of(messages, prompt, stream, on_event, tenant_id, user_id, conversation_id, options)
        answer = asked.answer()
        if not (stream or on_event or asked.has_logprobs):
            return answer.whole(Reply.from_json(self._native.generate(asked.request).wait()))
        events = ReplyStream(self, self._native.generate_stream(asked.request))
        if stream:
            return ChatStream(events, answer)
        with events:
            for event in events:
                answer.hear(event)
                if on_event is not None and on_event(event):
                    events.stop()
                    on_event = None
        return answer.completion()

    def conversation(
        self,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        history: Turns | None = None,
    ) -> Conversation:
        """A conversation that remembers its turns; ``history`` are turns that went before."""
        options = _requests.conversation(tenant_id, user_id, conversation_id, history)
        return Conversation(self, self._native.conversation(options))

    def models(self) -> list[Model]:
        """The models that are loaded, and the host's generators."""
        return [Model(model) for model in json.loads(self._native.models())]

    def health(self) -> Health:
        """How the engine is: cheap, for a load balancer that asks every second."""
        return Health.from_json(self._native.health())

    def ready(self) -> bool:
        """Whether the engine takes requests."""
        return self._native.ready()

    def diagnose(self) -> Diagnosis:
        """Tests every part and says what to do about what failed; each responder writes a few tokens."""
        return Diagnosis.from_json(self._native.diagnose())

    def metrics(self) -> str:
        """What the engine counted and what it holds, as the text that Prometheus reads."""
        return self._native.metrics()

    def drain(self, timeout: float | None = None) -> None:
        """Takes no new requests and waits until those under way have ended, at most ``timeout`` seconds; then closes.

        Raises :class:`DeadlineExceededError` when some had not ended. Ctrl-C ends the wait, not the drain.
        """
        self._native.drain(milliseconds(timeout))

    def close(self) -> None:
        """Ends everything: new calls and running work end with :class:`ClosedError`. Closing again does nothing."""
        self._native.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("an engine cannot be copied or pickled: open one where it is needed")


class ReplyStream(Iterator[Event]):
    """An answer as it comes: an iterator of :class:`Event`, one ``analysis``, then ``chunk``s, then ``done``.

    A failure is raised in place of the last event. Leaving its ``with`` block, or letting go of it, ends the work.
    """

    def __init__(self, engine: object, native: _native.Stream) -> None:
        # An engine that nobody else holds stays open for its stream.
        self._engine, self._native = engine, native

    def __iter__(self) -> ReplyStream:
        return self

    def __next__(self) -> Event:
        event = self._native.next()
        if event is None:
            raise StopIteration
        return event_from(event)

    def stop(self) -> None:
        """Ends the work, for a reader that has enough: the last event is a reply with what there was."""
        self._native.stop()

    def cancel(self) -> None:
        """Ends the stream, from any thread: the next read raises :class:`RequestCancelledError`."""
        self._native.cancel()

    def close(self) -> None:
        """Ends the work and lets go of the stream. Reading on raises :class:`ClosedError`."""
        self._native.close()

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("a stream cannot be copied or pickled")


class ChatStream(Iterator[ChatCompletionChunk]):
    """Chunks of a chat completion as they come. Leaving its ``with`` block, or letting go of it, ends the work."""

    def __init__(self, events: ReplyStream, answer: _openai.Answer) -> None:
        self._events, self._answer = events, answer
        # Chunks that came of an event and are not told yet, the next one last.
        self._ready = [answer.opening()]

    def __iter__(self) -> ChatStream:
        return self

    def __next__(self) -> ChatCompletionChunk:
        while not self._ready:
            self._ready = list(self._answer.chunks(next(self._events)))[::-1]
        return self._ready.pop()

    @property
    def reply(self) -> Reply | None:
        """The engine's own reply, once the stream has ended."""
        return self._answer.reply

    def stop(self) -> None:
        """Ends the work, for a reader that has enough: the last chunk says so."""
        self._events.stop()

    def cancel(self) -> None:
        """Ends the stream, from any thread: the next read raises :class:`RequestCancelledError`."""
        self._events.cancel()

    def close(self) -> None:
        """Ends the work and lets go of the stream."""
        self._events.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("a stream cannot be copied or pickled")


class Conversation:
    """A conversation: each answer knows the turns before it.

    >>> with Engine() as engine, engine.conversation() as conversation:
    ...     for event in conversation.say("Hello"):
    ...         print(event.content, end="")
    Hello, how can I help?
    """

    def __init__(self, engine: object, native: _native.Conversation) -> None:
        self._engine, self._native = engine, native

    def say(
        self,
        message: str,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        history: Turns | None = None,
        context: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> ReplyStream:
        """Says something; the answer comes as a stream.

        An answer that is cut short enters the history as far as it was read. Raises :class:`InvalidArgumentError` while the answer
        before is still being read.
        """
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        return ReplyStream(self._engine, self._native.say(request))

    @property
    def history(self) -> list[dict[str, str]]:
        """The turns so far, oldest first; an answer that is being read counts as far as it was read."""
        history: list[dict[str, str]] = json.loads(self._native.history())
        return history

    def reset(self) -> None:
        """Forgets all turns but those it began with."""
        self._native.reset()

    def close(self) -> None:
        """Lets go of it; its streams go on. Further use raises :class:`ClosedError`."""
        self._native.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> str:
        raise TypeError("a conversation cannot be copied or pickled: pickle its history")


class Cache:
    """The response cache of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _native(self) -> _native.Engine:
        return self._engine._owned.native

    def stats(self) -> CacheStats:
        """What it holds, and how it has served."""
        return CacheStats.from_json(self._native.cache_stats())

    def clear(self, tenant_id: str | None = None) -> None:
        """Forgets the answers of a tenant; without one, all."""
        self._native.cache_clear(None if tenant_id is None else _requests.text("tenant_id", tenant_id))

    def warm(
        self,
        message: str,
        *,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        history: Turns | None = None,
        context: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Answers a request ahead of its time, so that an equal one is a hit: at low priority, and not if it is there."""
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        self._native.cache_warm(request).wait()

    def resize(self, max_bytes: int) -> None:
        """Sets the bound on its bytes; 0 switches it off."""
        self._native.cache_resize(_requests.size("max_bytes", max_bytes))


def pushed(events: ReplyStream, on_event: OnEvent) -> Reply:
    """Calls a consumer with every event, until it has enough."""
    wants_more = True
    with events:
        for event in events:
            if wants_more and on_event(event):
                wants_more = False
                events.stop()
            if event.reply is not None:
                return event.reply
    raise ClosedError("the stream ended without a reply")


def analyses(text: str) -> list[Analysis]:
    """A list of analyses from its JSON."""
    return [Analysis(analysis) for analysis in json.loads(text)]


def intents(analysis: Analysis) -> list[Json]:
    """Labels and scores, the analysis's own label first."""
    intent = analysis.intent
    best: list[Json] = [{"label": intent.label, "score": intent.confidence}]
    return best + [
        {"label": ranked.label, "score": ranked.confidence} for ranked in intent.ranking if ranked.label != intent.label
    ]


def sentiments(analysis: Analysis) -> list[Json]:
    """Labels and scores, best first."""
    scores = analysis.sentiment.scores.items()
    return [{"label": label, "score": score} for label, score in sorted(scores, key=lambda item: -item[1])]


def vectors(value: Any) -> list[list[float]]:
    """What the engine gives for texts to embed."""
    result: list[list[float]] = value
    return result


def first(value: Any) -> list[float]:
    """The vector of the one text."""
    return vectors(value)[0]


def milliseconds(timeout: float | None) -> int:
    """A time-out in seconds, as the engine counts; none is for as long as it takes."""
    return _LONGEST if timeout is None else max(0, min(_LONGEST, round(timeout * 1000)))


_LONGEST = 7 * 24 * 3600 * 1000
