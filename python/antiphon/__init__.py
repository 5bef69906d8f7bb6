"""Conversational AI as an embedded library: what SQLite is to databases.

A program hands an :class:`Engine` a message and gets back what it means (intent, sentiment, entities) and an answer, token by
token, computed in this process by models that are part of the package. There is no server and no network.

>>> import antiphon
>>> engine = antiphon.Engine()
>>> engine.analyze("Where is order 4711?").intent.label
'track_order'
>>> for event in engine.stream("Hello, I need help with my account"):
...     print(event.content, end="")
Certainly! I'm here to help. Could you give me a few more details, so that I can point you in the right direction?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _native
from ._engine import Cache, ChatStream, Conversation, Engine, ReplyStream
from ._errors import (
    AntiphonError,
    BackendUnavailableError,
    ClosedError,
    ContextFullError,
    DeadlineExceededError,
    ForkedError,
    HubUnavailableError,
    InputTooLongError,
    IntegrityMismatchError,
    InternalError,
    InvalidArgumentError,
    InvalidConfigError,
    InvalidTextError,
    IoError,
    ModelInvalidError,
    ModelNotFoundError,
    OutOfBudgetError,
    OverloadedError,
    PluginFailedError,
    QuotaExceededError,
    RequestCancelledError,
    UnknownModelError,
    UnsupportedModelError,
)
from ._openai import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    ChatUsage,
)
from ._plugins import Generator, Observer, SharedTier, Stage
from ._reports import CacheStats, Check, Configuration, Diagnosis, Health, Model
from ._results import (
    Analysis,
    Entity,
    Event,
    Generation,
    Intent,
    Metadata,
    NlpProcessing,
    Ranked,
    Reply,
    Repro,
    Sentiment,
    Timings,
    TokenLogprob,
    Usage,
)

if TYPE_CHECKING:
    from ._aio import AsyncCache, AsyncChatStream, AsyncConversation, AsyncEngine, AsyncReplyStream

#: The version of the library.
__version__: str = _native.VERSION

__all__ = [
    "Analysis",
    "AntiphonError",
    "AsyncCache",
    "AsyncChatStream",
    "AsyncConversation",
    "AsyncEngine",
    "AsyncReplyStream",
    "BackendUnavailableError",
    "Cache",
    "CacheStats",
    "ChatChoice",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatLogprob",
    "ChatLogprobs",
    "ChatMessage",
    "ChatStream",
    "ChatUsage",
    "Check",
    "ClosedError",
    "Configuration",
    "ContextFullError",
    "Conversation",
    "DeadlineExceededError",
    "Diagnosis",
    "Engine",
    "Entity",
    "Event",
    "ForkedError",
    "Generation",
    "Generator",
    "Health",
    "HubUnavailableError",
    "InputTooLongError",
    "IntegrityMismatchError",
    "Intent",
    "InternalError",
    "InvalidArgumentError",
    "InvalidConfigError",
    "InvalidTextError",
    "IoError",
    "Metadata",
    "Model",
    "ModelInvalidError",
    "ModelNotFoundError",
    "NlpProcessing",
    "Observer",
    "OutOfBudgetError",
    "OverloadedError",
    "PluginFailedError",
    "QuotaExceededError",
    "Ranked",
    "Reply",
    "ReplyStream",
    "Repro",
    "RequestCancelledError",
    "Sentiment",
    "SharedTier",
    "Stage",
    "Timings",
    "TokenLogprob",
    "UnknownModelError",
    "UnsupportedModelError",
    "Usage",
    "__version__",
]

_ASYNC = ("AsyncCache", "AsyncChatStream", "AsyncConversation", "AsyncEngine", "AsyncReplyStream")


def __getattr__(name: str) -> object:
    # asyncio takes longer to import than all of this: it comes with the first use of what needs it.
    if name in _ASYNC:
        from . import _aio

        globals().update({name: getattr(_aio, name) for name in _ASYNC})
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
