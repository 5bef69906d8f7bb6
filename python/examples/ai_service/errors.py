"""One shape for everything that goes wrong: the engine's error, as JSON, with a fitting status."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from antiphon import AntiphonError, InputTooLongError, InternalError, InvalidArgumentError
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException


class ErrorDetail(BaseModel):
    code: int
    kind: str
    type: str
    severity: str
    message: str
    retryable: bool
    retry_after_ms: int | None
    hint: str


class ErrorReply(BaseModel):
    """The wrapping is what OpenAI's clients look into."""

    error: ErrorDetail


# For the schema. Named by range, they stand in for the framework's own description of invalid requests.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request, or too many of them"},
    "5XX": {"model": ErrorReply, "description": "The service"},
}

# Kinds that are not here are nothing that a caller can do something about: 500.
STATUS = {
    "invalid_argument": 400,
    "invalid_text": 400,
    "input_too_long": 400,
    "context_full": 400,
    # The models were there when the service started: what a request can ask too much of is one of them.
    "unsupported_model": 400,
    "unknown_model": 404,
    "quota_exceeded": 429,
    "overloaded": 429,
    "cancelled": 499,
    "plugin_failed": 502,
    "closed": 503,
    "out_of_budget": 503,
    "backend_unavailable": 503,
    "deadline_exceeded": 504,
}


def response(error: AntiphonError, status: int | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that failed."""
    headers = dict(headers or {})
    if error.retryable:
        # The header counts whole seconds; the JSON has the milliseconds. A second, where nobody knows.
        headers["Retry-After"] = str(math.ceil((error.retry_after_ms or 1000) / 1000))
    return JSONResponse({"error": error.to_dict()}, status or STATUS.get(error.kind, 500), headers)


def invalid(faults: Sequence[Any]) -> AntiphonError:
    """The first fault that a schema found. What the caller sent is not repeated: it may end in a log."""
    place = ".".join(str(step) for step in faults[0]["loc"])
    return InvalidArgumentError(f"`{place[:100]}`: {faults[0]['msg']}" if place else str(faults[0]["msg"]))


def from_exception(failure: Exception) -> AntiphonError:
    if isinstance(failure, AntiphonError):
        return failure
    if isinstance(failure, (RequestValidationError, ValidationError)):
        return invalid(failure.errors())
    return InternalError("the service failed, its log says why")


def install(app: FastAPI) -> None:
    """Answers every exception in the one shape; `async`, or each answer would take a thread."""

    async def answer(request: Request, failure: Exception) -> JSONResponse:
        error, status, headers = from_exception(failure), None, None
        if isinstance(failure, HTTPException):
            # No such path, a method that the path does not have, a body that is not JSON or too long.
            kind = InputTooLongError if failure.status_code == 413 else InvalidArgumentError
            error, status, headers = kind(str(failure.detail)), failure.status_code, failure.headers
        request.state.outcome = error.kind
        return response(error, status, dict(headers or {}))

    for kind in (AntiphonError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
