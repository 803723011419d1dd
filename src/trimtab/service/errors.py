"""Faults that only HTTP knows, and every fault as an OpenAI error body. No path, stack or model output."""

from __future__ import annotations

import traceback

import msgspec

from trimtab.spec.errors import (
    EngineError,
    NotFoundError,
    OverloadedError,
    TrimtabError,
    UnavailableError,
    UsageError,
)


class RouteNotFoundError(NotFoundError):
    code = "unknown_url"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class ContextLengthError(UsageError):
    code = "context_length_exceeded"


class UnsupportedError(UsageError):
    """A parameter that is known and would change the answer, but is not served."""

    code = "unsupported_parameter"


class MethodError(UsageError):
    status, code = 405, "method_not_allowed"


class BodyTooLargeError(UsageError):
    status, code = 413, "request_too_large"


class MediaTypeError(UsageError):
    status, code = 415, "unsupported_media_type"


class SlowClientError(UsageError):
    status, code = 408, "request_timeout"


class DeadlineError(TrimtabError):
    status, code = 504, "deadline_exceeded"


class ClientGoneError(Exception):
    """Nobody is there to answer: the client closed its connection."""


_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    501: "invalid_request_error",
    505: "invalid_request_error",
}


class _Fault(msgspec.Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct, frozen=True):
    error: _Fault


def error_body(error: TrimtabError) -> bytes:
    """`{"error": {message, type, param, code}}`. `param` names the field that is wrong."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    param = error.where if isinstance(error, UsageError) else None
    message = f"{error.message} {error.remedy}" if error.remedy else error.message
    return msgspec.json.encode(ErrorBody(_Fault(message=message, type=kind, param=param, code=error.code)))


def error_headers(error: TrimtabError) -> list[tuple[bytes, bytes]]:
    """What a client needs beside the body: when to come back, how to authenticate."""
    if isinstance(error, OverloadedError):
        return [(b"retry-after", str(max(1, round(error.retry_after))).encode())]
    if isinstance(error, EngineError | UnavailableError):
        return [(b"retry-after", b"5")]
    if error.status == 401:
        return [(b"www-authenticate", b"Bearer")]
    return []


def origin(error: BaseException) -> str:
    """Kind and place of an unexpected exception, for the log. Not its words: they may be a user's."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " > ".join(
        f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames
    )
    return f"{type(error).__name__} at {places or 'an unknown place'}"
