"""The engine for event loops. Nothing here blocks one, and no thread waits for a stream."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union, overload

from . import _engine, _loops, _native, _openai, _plugins, _requests
from ._engine import Turns
from ._errors import ClosedError
from ._openai import ChatCompletion, ChatCompletionChunk
from ._reports import CacheStats, Diagnosis, Health, Model
from ._results import Analysis, Entity, Event, Json, Reply, event_from

if TYPE_CHECKING:
    from typing import Literal

_T = TypeVar("_T")
OnEvent = Callable[[Event], Any]


class AsyncEngine:
    """Conversational AI inside this process, for event loops: :class:`Engine`, with ``await`` where that waits.

    A task that is cancelled cancels its work. Opening loads models, for which the constructor blocks (a few hundred milliseconds);
    ``await AsyncEngine.open(...)`` does it in a thread. One engine may serve any number of loops.

    >>> async def main():
    ...     async with AsyncEngine() as engine:
    ...         async for event in engine.stream("Hello"):
    ...             print(event.content, end="")
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
        self._sync = _engine.Engine(
            shared_tier=shared_tier, generators=generators, stages=stages, observers=observers, **config
        )
        self._native = self._sync._owned.native

    @classmethod
    async def open(cls, **config: Any) -> AsyncEngine:
        """Opens an engine in a thread; keywords are those of the constructor."""
        return await asyncio.to_thread(cls, **config)

    @property
    def cache(self) -> AsyncCache:
        """The response cache."""
        return AsyncCache(self)

    async def analyze(self, text: str) -> Analysis:
        """What a text means: see :meth:`Engine.analyze`."""
        return Analysis.from_json(await _answer(self._native.analyze(_requests.text("text", text))))

    async def analyze_batch(self, texts: Iterable[str]) -> list[Analysis]:
        """What texts mean: see :meth:`Engine.analyze_batch`."""
        pending = await _begin(self._native.analyze_batch, _requests.texts(texts))
        return _engine.analyses(await _answer(pending))

    async def intent(self, text: str) -> list[Json]:
        """What the user wants: ``[{"label", "score"}]``, best first."""
        return _engine.intents(await self.analyze(text))

    async def sentiment(self, text: str) -> list[Json]:
        """How the user feels about it: ``[{"label", "score"}]``, best first."""
        return _engine.sentiments(await self.analyze(text))

    async def entities(self, text: str) -> list[Entity]:
        """The things a text names, in order of position."""
        return (await self.analyze(text)).entities

    @overload
    async def embed(self, text: str) -> list[float]: ...  # type: ignore[overload-overlap]
    @overload
    async def embed(self, text: Iterable[str]) -> list[list[float]]: ...
    async def embed(self, text: str | Iterable[str]) -> list[float] | list[list[float]]:
        """The vector of a text, or those of a list: see :meth:`Engine.embed`."""
        if isinstance(text, str):
            return _engine.first(await _answer(self._native.embed([_requests.text("text", text)])))
        pending = await _begin(self._native.embed, _requests.texts(text))
        return _engine.vectors(await _answer(pending))

    async def summarize(
        self, text: str, *, sentences: int | None = None, share: float | None = None, method: str | None = None
    ) -> str:
        """A summary of a text: see :meth:`Engine.summarize`."""
        options = _requests.encoded(
            "summary options", _requests.given({"sentences": sentences, "share": share, "method": method})
        )
        pending = self._native.summarize(_requests.text("text", text), options)
        # Choosing sentences is work of the one who waits, so it is done in a thread.
        summary: str = await _in_thread(pending)
        return summary

    async def process(
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
        """Understands and answers a message: see :meth:`Engine.process`. ``on_event`` may be a coroutine function."""
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
            return Reply.from_json(await _answer(self._native.process(request)))
        wants_more = True
        async with AsyncReplyStream(self, self._native.stream(request)) as events:
            async for event in events:
                if wants_more and await _heard(on_event, event):
                    wants_more = False
                    events.stop()
                if event.reply is not None:
                    return event.reply
        raise ClosedError("the stream ended without a reply")

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
    ) -> AsyncReplyStream:
        """Understands and answers a message, as it comes: an asynchronous iterator of :class:`Event`. Returns at once."""
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        return AsyncReplyStream(self, self._native.stream(request))

    @overload
    async def generate(
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
    async def generate(
        self,
        messages: Iterable[Mapping[str, Any]] | None = None,
        *,
        stream: Literal[True],
        prompt: str | None = None,
        tenant_id: str | None = None,
        user_id: str | None = None,
        conversation_id: str | None = None,
        **options: Any,
    ) -> AsyncChatStream: ...
    @overload
    async def generate(
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
    ) -> ChatCompletion | AsyncChatStream: ...
    async def generate(
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
    ) -> ChatCompletion | AsyncChatStream:
        """Continues chat turns: see :meth:`Engine.generate`. With ``stream=True``: ``async for chunk in await engine.generate(...)``."""
        asked = _openai.Asked.of(messages, prompt, stream, on_event, tenant_id, user_id, conversation_id, options)
        answer = asked.answer()
        if not (stream or on_event or asked.has_logprobs):
            return answer.whole(Reply.from_json(await _answer(self._native.generate(asked.request))))
        events = AsyncReplyStream(self, self._native.generate_stream(asked.request))
        if stream:
            return AsyncChatStream(events, answer)
        async with events:
            async for event in events:
                answer.hear(event)
                if on_event is not None and await _heard(on_event, event):
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
    ) -> AsyncConversation:
        """A conversation that remembers its turns; ``history`` are turns that went before."""
        options = _requests.conversation(tenant_id, user_id, conversation_id, history)
        return AsyncConversation(self, self._native.conversation(options))

    async def models(self) -> list[Model]:
        """The models that are loaded, and the host's generators."""
        return self._sync.models()

    async def health(self) -> Health:
        """How the engine is: cheap, for a load balancer that asks every second."""
        return self._sync.health()

    def ready(self) -> bool:
        """Whether the engine takes requests."""
        return self._sync.ready()

    async def diagnose(self) -> Diagnosis:
        """Tests every part, in a thread: see :meth:`Engine.diagnose`."""
        return await asyncio.to_thread(self._sync.diagnose)

    async def metrics(self) -> str:
        """What the engine counted and what it holds, as the text that Prometheus reads."""
        return self._sync.metrics()

    async def drain(self, timeout: float | None = None) -> None:
        """Takes no new requests and waits until those under way have ended: see :meth:`Engine.drain`."""
        await asyncio.to_thread(self._sync.drain, timeout)

    async def aclose(self) -> None:
        """Ends everything: new calls and running work end with :class:`ClosedError`. Closing again does nothing."""
        await asyncio.to_thread(self._sync.close)

    async def __aenter__(self) -> AsyncEngine:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> str:
        raise TypeError("an engine cannot be copied or pickled: open one where it is needed")


class AsyncReplyStream(AsyncIterator[Event]):
    """``async for`` over an answer: one ``analysis``, then ``chunk``s, then ``done``. No thread waits for it.

    A failure is raised in place of the last event. Leaving its ``async with`` block, letting go of it, or cancelling the task that
    reads it ends the work.
    """

    def __init__(self, engine: object, native: _native.Stream) -> None:
        # An engine that nobody else holds stays open for its stream.
        self._engine, self._native = engine, native

    def __aiter__(self) -> AsyncReplyStream:
        return self

    async def __anext__(self) -> Event:
        native = self._native
        event = native.poll()
        while event is False:
            waiter = _waiter()
            event = native.poll(waiter)
            if event is False:
                await _until(waiter, native)
        if event is None:
            raise StopAsyncIteration
        return event_from(event)

    def stop(self) -> None:
        """Ends the work, for a reader that has enough: the last event is a reply with what there was."""
        self._native.stop()

    def cancel(self) -> None:
        """Ends the stream: the next read raises :class:`RequestCancelledError`."""
        self._native.cancel()

    async def aclose(self) -> None:
        """Ends the work and lets go of the stream. Reading on raises :class:`ClosedError`."""
        self._native.close()

    async def __aenter__(self) -> AsyncReplyStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> str:
        raise TypeError("a stream cannot be copied or pickled")


class AsyncChatStream(AsyncIterator[ChatCompletionChunk]):
    """Chunks of a chat completion as they come. Leaving its ``async with`` block, or letting go of it, ends the work."""

    def __init__(self, events: AsyncReplyStream, answer: _openai.Answer) -> None:
        self._events, self._answer = events, answer
        # Chunks that came of an event and are not told yet, the next one last.
        self._ready = [answer.opening()]

    def __aiter__(self) -> AsyncChatStream:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        while not self._ready:
            event = await self._events.__anext__()
            self._ready = list(self._answer.chunks(event))[::-1]
        return self._ready.pop()

    @property
    def reply(self) -> Reply | None:
        """The engine's own reply, once the stream has ended."""
        return self._answer.reply

    def stop(self) -> None:
        """Ends the work, for a reader that has enough: the last chunk says so."""
        self._events.stop()

    def cancel(self) -> None:
        """Ends the stream: the next read raises :class:`RequestCancelledError`."""
        self._events.cancel()

    async def aclose(self) -> None:
        """Ends the work and lets go of the stream."""
        await self._events.aclose()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> str:
        raise TypeError("a stream cannot be copied or pickled")


class AsyncConversation:
    """A conversation: each answer knows the turns before it. See :class:`Conversation`."""

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
    ) -> AsyncReplyStream:
        """Says something; the answer comes as a stream."""
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        return AsyncReplyStream(self._engine, self._native.say(request))

    @property
    def history(self) -> list[dict[str, str]]:
        """The turns so far, oldest first; an answer that is being read counts as far as it was read."""
        history: list[dict[str, str]] = json.loads(self._native.history())
        return history

    def reset(self) -> None:
        """Forgets all turns but those it began with."""
        self._native.reset()

    async def aclose(self) -> None:
        """Lets go of it; its streams go on. Further use raises :class:`ClosedError`."""
        self._native.close()

    async def __aenter__(self) -> AsyncConversation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __reduce__(self) -> str:
        raise TypeError("a conversation cannot be copied or pickled: pickle its history")


class AsyncCache:
    """The response cache of an engine."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def stats(self) -> CacheStats:
        """What it holds, and how it has served."""
        return self._engine._sync.cache.stats()

    async def clear(self, tenant_id: str | None = None) -> None:
        """Forgets the answers of a tenant; without one, all."""
        self._engine._sync.cache.clear(tenant_id)

    async def warm(
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
        """Answers a request ahead of its time, so that an equal one is a hit."""
        request = _requests.process(
            message,
            options,
            tenant_id=tenant_id,
            user_id=user_id,
            conversation_id=conversation_id,
            history=history,
            context=context,
        )
        await _answer(self._engine._native.cache_warm(request))

    async def resize(self, max_bytes: int) -> None:
        """Sets the bound on its bytes; 0 switches it off."""
        self._engine._sync.cache.resize(max_bytes)


async def _answer(pending: _native.Pending) -> Any:
    """Waits for an answer in the running loop."""
    value = pending.poll()
    while value is False:
        waiter = _waiter()
        value = pending.poll(waiter)
        if value is False:
            await _until(waiter, pending)
    return value


def _waiter() -> asyncio.Future[None]:
    _loops.serve()
    return asyncio.get_running_loop().create_future()


async def _until(waiter: asyncio.Future[None], work: Union[_native.Pending, _native.Stream]) -> None:
    """Waits to be woken. A task that is cancelled meanwhile cancels the work."""
    try:
        await waiter
    except BaseException:
        work.cancel()
        raise


async def _begin(begin: Callable[[list[str]], _native.Pending], texts: list[str]) -> _native.Pending:
    """Texts are cut into tokens by the one who asks: many of them in a thread, for the loop's sake."""
    if len(texts) <= _FEW:
        return begin(texts)
    return await asyncio.to_thread(begin, texts)


async def _in_thread(pending: _native.Pending) -> Any:
    """Waits for an answer in a thread."""
    try:
        return await asyncio.to_thread(pending.wait)
    except asyncio.CancelledError:
        pending.cancel()
        raise


async def _heard(on_event: OnEvent, event: Event) -> Any:
    heard = on_event(event)
    return await heard if inspect.isawaitable(heard) else heard


#: So many texts are cut in the time that a loop can spare.
_FEW = 16
