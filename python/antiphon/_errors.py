"""One numbered list of failures, the same in every language: a class each.

Many are also what a caller of Python would expect, so that ``except ValueError`` or ``except TimeoutError`` work.
"""

from __future__ import annotations

from typing import Any, ClassVar


class AntiphonError(Exception):
    """Every failure this library reports. The message never holds a user's text.

    ``code`` is the number, ``kind`` the name; ``type`` and ``severity`` are the words that chat platforms use; ``hint`` says
    what to do about it. Where ``retryable`` is true the same call can succeed later, after ``retry_after_ms`` milliseconds
    where that is known.
    """

    code: ClassVar[int] = -901
    kind: ClassVar[str] = "internal"
    type: ClassVar[str] = "UNKNOWN"
    severity: ClassVar[str] = "CRITICAL"
    retryable: ClassVar[bool] = False
    hint: ClassVar[str] = ""

    def __init__(self, message: str = "", *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """The error in its JSON shape."""
        return {
            "code": self.code,
            "kind": self.kind,
            "type": self.type,
            "severity": self.severity,
            "message": self.message,
            "retryable": self.retryable,
            "retry_after_ms": self.retry_after_ms,
            "hint": self.hint,
        }


class InvalidArgumentError(AntiphonError, ValueError):
    """An argument or option is out of its range, or nobody knows it."""

    code = -101
    kind = "invalid_argument"
    type = "VALIDATION"
    severity = "LOW"
    retryable = False
    hint = "correct the argument that the message names"


class InvalidTextError(AntiphonError, ValueError):
    """A text is empty, white space, or has a lone surrogate."""

    code = -102
    kind = "invalid_text"
    type = "VALIDATION"
    severity = "LOW"
    retryable = False
    hint = "send a text in UTF-8 with something in it"


class InputTooLongError(AntiphonError, ValueError):
    """A text is longer than the limit."""

    code = -103
    kind = "input_too_long"
    type = "VALIDATION"
    severity = "LOW"
    retryable = False
    hint = "shorten the text or raise the configured limit"


class ContextFullError(AntiphonError, ValueError):
    """The prompt does not fit the model's context."""

    code = -104
    kind = "context_full"
    type = "VALIDATION"
    severity = "LOW"
    retryable = False
    hint = "shorten the history, lower max_tokens, or set overflow to truncate_oldest"


class UnknownModelError(AntiphonError, ValueError):
    """The option `model` names no configured model."""

    code = -105
    kind = "unknown_model"
    type = "VALIDATION"
    severity = "MEDIUM"
    retryable = False
    hint = "use a name from models(), or configure the model"


class InvalidConfigError(AntiphonError, ValueError):
    """A configuration value is out of its range, or a key is unknown."""

    code = -106
    kind = "invalid_config"
    type = "VALIDATION"
    severity = "HIGH"
    retryable = False
    hint = "correct the configuration key that the message names"


class ClosedError(AntiphonError):
    """The engine, the conversation or the stream is closed."""

    code = -107
    kind = "closed"
    type = "SYSTEM"
    severity = "MEDIUM"
    retryable = False
    hint = "open a new engine"


class ForkedError(AntiphonError):
    """The engine was opened in another process: open one after `fork`."""

    code = -108
    kind = "forked"
    type = "SYSTEM"
    severity = "HIGH"
    retryable = False
    hint = "open the engine in the child process, after fork"


class QuotaExceededError(AntiphonError):
    """A tenant's or user's quota is used up."""

    code = -109
    kind = "quota_exceeded"
    type = "RATE_LIMIT"
    severity = "MEDIUM"
    retryable = True
    hint = "wait for the time in retry_after_ms"


class ModelNotFoundError(AntiphonError, FileNotFoundError):
    """No such model file or directory."""

    code = -201
    kind = "model_not_found"
    type = "SYSTEM"
    severity = "HIGH"
    retryable = False
    hint = "check the path of the model"


class ModelInvalidError(AntiphonError):
    """A model's files are malformed or disagree with each other."""

    code = -202
    kind = "model_invalid"
    type = "SYSTEM"
    severity = "HIGH"
    retryable = False
    hint = "get the model's files again; they are not well-formed"


class IntegrityMismatchError(AntiphonError):
    """A model's bytes are not the ones its manifest lists."""

    code = -203
    kind = "integrity_mismatch"
    type = "SYSTEM"
    severity = "CRITICAL"
    retryable = False
    hint = "get the model's files again; they are not those its manifest lists"


class UnsupportedModelError(AntiphonError):
    """A model needs something this build does not have."""

    code = -204
    kind = "unsupported_model"
    type = "SYSTEM"
    severity = "HIGH"
    retryable = False
    hint = "convert the model, or use a supported architecture"


class IoError(AntiphonError, OSError):
    """The operating system failed a read or a thread."""

    code = -205
    kind = "io"
    type = "SYSTEM"
    severity = "HIGH"
    retryable = True
    hint = "check permissions, disk and limits of the process"


class OutOfBudgetError(AntiphonError, MemoryError):
    """The request or model does not fit the memory limit."""

    code = -206
    kind = "out_of_budget"
    type = "SYSTEM"
    severity = "HIGH"
    retryable = True
    hint = "raise the memory limit or ask for less"


class HubUnavailableError(AntiphonError, ConnectionError):
    """The model hub cannot be reached."""

    code = -207
    kind = "hub_unavailable"
    type = "NETWORK"
    severity = "MEDIUM"
    retryable = True
    hint = "try again later or use local files"


class PluginFailedError(AntiphonError):
    """A plugin of the host failed. Where it raised within this call, its exception is the `__cause__`."""

    code = -208
    kind = "plugin_failed"
    type = "API"
    severity = "MEDIUM"
    retryable = True
    hint = "look at the plugin's own log"


class OverloadedError(AntiphonError):
    """The queue is full."""

    code = -301
    kind = "overloaded"
    type = "RATE_LIMIT"
    severity = "MEDIUM"
    retryable = True
    hint = "wait for the time in retry_after_ms"


class DeadlineExceededError(AntiphonError, TimeoutError):
    """The deadline passed before there was anything to show."""

    code = -302
    kind = "deadline_exceeded"
    type = "API"
    severity = "MEDIUM"
    retryable = True
    hint = "allow more time or lower the load"


class RequestCancelledError(AntiphonError):
    """The work was cancelled."""

    code = -303
    kind = "cancelled"
    type = "API"
    severity = "LOW"
    retryable = False
    hint = "nothing to do: the caller asked for it"


class BackendUnavailableError(AntiphonError, ConnectionError):
    """Nothing can answer: no responder is loaded or its circuit is open."""

    code = -305
    kind = "backend_unavailable"
    type = "API"
    severity = "HIGH"
    retryable = True
    hint = "configure a responder, or try again later"


class InternalError(AntiphonError):
    """A bug of this library."""

    code = -901
    kind = "internal"
    type = "UNKNOWN"
    severity = "CRITICAL"
    retryable = False
    hint = "report this; the engine goes on"


#: Every class, in the order of the numbers.
KINDS: tuple[type[AntiphonError], ...] = (
    InvalidArgumentError,
    InvalidTextError,
    InputTooLongError,
    ContextFullError,
    UnknownModelError,
    InvalidConfigError,
    ClosedError,
    ForkedError,
    QuotaExceededError,
    ModelNotFoundError,
    ModelInvalidError,
    IntegrityMismatchError,
    UnsupportedModelError,
    IoError,
    OutOfBudgetError,
    HubUnavailableError,
    PluginFailedError,
    OverloadedError,
    DeadlineExceededError,
    RequestCancelledError,
    BackendUnavailableError,
    InternalError,
)

_BY_CODE = {kind.code: kind for kind in KINDS}


def from_native(code: int, message: str, retry_after_ms: int | None) -> AntiphonError:
    """The exception of an error of the engine's."""
    return _BY_CODE.get(code, AntiphonError)(message, retry_after_ms=retry_after_ms)
