"""What is asked, on its way to the engine: checked for its types, written as JSON in UTF-8."""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ._errors import InvalidArgumentError, InvalidTextError


def text(name: str, value: object) -> str:
    """A text of the caller's, a ``str`` that has a form in UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be str, not {type(value).__name__}")
    _check_utf8(name, value)
    return value


def texts(value: object) -> list[str]:
    """Texts of the caller's; a single one is no list of characters."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"texts must be a list of str, not {type(value).__name__}")
    return [text(f"text {index}", item) for index, item in enumerate(value)]


def process(
    message: object,
    options: Mapping[str, Any],
    *,
    tenant_id: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
    history: Iterable[Mapping[str, str]] | None = None,
    context: Mapping[str, Any] | None = None,
) -> bytes:
    """A request to answer a message, as JSON. What is None is the engine's default."""
    if not isinstance(message, str):
        raise TypeError(f"message must be str, not {type(message).__name__}")
    request: dict[str, Any] = {"message": message}
    if history is not None:
        request["history"] = turns(history)
    if context is not None:
        request["context"] = context
    return encoded("request", _with_common(request, options, tenant_id, user_id, conversation_id))


def generate(
    messages: Iterable[Mapping[str, Any]] | None,
    prompt: str | None,
    options: Mapping[str, Any],
    *,
    tenant_id: str | None = None,
    user_id: str | None = None,
    conversation_id: str | None = None,
) -> bytes:
    """A request to continue turns, or a text, as JSON."""
    request: dict[str, Any] = {"messages": [] if messages is None else turns(messages)}
    if prompt is not None:
        request["prompt"] = prompt
    return encoded("request", _with_common(request, options, tenant_id, user_id, conversation_id))


def conversation(
    tenant_id: str | None,
    user_id: str | None,
    conversation_id: str | None,
    history: Iterable[Mapping[str, str]] | None,
) -> bytes:
    """How a conversation begins, as JSON."""
    known = given({"tenant_id": tenant_id, "user_id": user_id, "conversation_id": conversation_id})
    if history is not None:
        known["history"] = turns(history)
    return encoded("conversation", known)


def turns(value: Any) -> Any:
    """Chat turns of the caller's, any iterable of mappings. What is none of them the engine refuses by its place."""
    return value if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) else list(value)


def size(name: str, value: object) -> int:
    """A number of bytes."""
    if not hasattr(type(value), "__index__") or isinstance(value, bool):
        raise TypeError(f"{name} must be int, not {type(value).__name__}")
    number = operator.index(value)  # type: ignore[arg-type]
    if not 0 <= number < 1 << 64:
        raise InvalidArgumentError(f"`{name}` is {number}, expected 0 to 18446744073709551615")
    return number


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not None."""
    return {key: value for key, value in options.items() if value is not None}


def encoded(name: str, value: Mapping[str, Any]) -> bytes:
    """A value as JSON in UTF-8. What has no form in it is named by its place."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except UnicodeEncodeError:
        _walk("", value)
        raise
    except (RecursionError, ValueError):
        try:
            _walk("", value)
        except RecursionError:
            pass
        # Not a number then.
        raise InvalidArgumentError(f"{name} is nested too deeply, or holds itself, expected plain values") from None


def _with_common(
    request: dict[str, Any],
    options: Mapping[str, Any],
    tenant_id: str | None,
    user_id: str | None,
    conversation_id: str | None,
) -> dict[str, Any]:
    request.update(given({"tenant_id": tenant_id, "user_id": user_id, "conversation_id": conversation_id}))
    chosen = given(options)
    if chosen:
        request["options"] = chosen
    return request


def _plain(value: object) -> Any:
    """What JSON has for a value that it does not know: numbers of numpy, paths, any mapping or iterable."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected str, not {type(value).__name__}")
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", 0) == 0:
        return item()
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"expected a plain value, not {type(value).__name__}")


def _walk(place: str, value: object) -> None:
    """Raises for the first value that has no form in JSON."""
    if isinstance(value, str):
        _check_utf8(place, value)
    elif isinstance(value, float) and not math.isfinite(value):
        shown = "NaN" if math.isnan(value) else str(value)
        raise InvalidArgumentError(f"`{place}` is {shown}, expected a finite number")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            _check_utf8(f"a key of {place or 'the request'}", str(key))
            _walk(f"{place}.{key}" if place else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            _walk(f"{place}[{index}]", inner)


def _check_utf8(name: str, value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            begun = len(value[: error.start].encode())
            raise InvalidTextError(f"{name} is not UTF-8 from byte {begun} on") from None
