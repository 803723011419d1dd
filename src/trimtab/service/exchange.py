"""One request and its answer at the ASGI edge: body with a bound, headers, streaming, the client's leaving.

Every answer passes through here, so every answer carries `x-request-id`. Knows nothing of models or dialects.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from trimtab.service import limits
from trimtab.service.errors import (
    BodyTooLargeError,
    ClientGoneError,
    MediaTypeError,
    error_body,
    error_headers,
)
from trimtab.spec.errors import TrimtabError, UsageError
from trimtab.spec.ids import request_id

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# The ASGI extension of our server.
DIRECT_WRITE = "trimtab.direct_write"
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_CHARSET = re.compile(r"charset\s*=\s*\"?([^\";\s]*)")
_JSON = (b"content-type", b"application/json")
_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class DirectWriter(Protocol):
    """The server's side of an answer: pieces of it are written at once. `write` only when `ready` says so."""

    def ready(self) -> bool:
        """Whether `send` would write without waiting."""
        ...

    def write(self, data: bytes) -> None: ...

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client leaves before its answer is complete; at once if it has left."""
        ...


class Exchange:
    """`started` is the moment the headers were complete, on the monotonic clock."""

    __slots__ = ("_receive", "_scope", "_send", "extra_headers", "id", "marks", "route", "started", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.id = request_id()
        self.started = time.perf_counter()
        self.marks: list[tuple[str, float]] = []
        self.status = 0
        self.route = "none"  # the table's path, for metrics
        self.extra_headers: Headers = []  # of whatever answer it gets

    @property
    def method(self) -> str:
        return self._scope["method"]

    @property
    def path(self) -> str:
        return self._scope["path"]

    @property
    def path_parameters(self) -> dict[str, str]:
        return self._scope.get("path_params", {})

    def header(self, name: bytes) -> str | None:
        for key, value in self._scope["headers"]:
            if key == name:
                return value.decode("latin-1")
        return None

    def headers(self, name: bytes) -> list[str]:
        """All values of a header that may come more than once."""
        return [value.decode("latin-1") for key, value in self._scope["headers"] if key == name]

    def deadline(self) -> float | None:
        """Seconds that the client still waits, by `x-request-timeout`; None if it does not say."""
        said = self.header(b"x-request-timeout")
        if said is None:
            return None
        if not _SECONDS.fullmatch(said):
            raise UsageError(
                "The header x-request-timeout is not a number of seconds.",
                where="x-request-timeout",
                remedy="Send a number such as 2.5.",
            )
        return float(said)

    def mark(self, name: str) -> None:
        """Note that a phase of the work ends now, for `Server-Timing`."""
        self.marks.append((name, time.perf_counter()))

    def timing(self) -> dict[str, float]:
        """Milliseconds by phase, in order."""
        before, found = self.started, {}
        for name, moment in self.marks:
            found[name] = round((moment - before) * 1e3, 2)
            before = moment
        return found

    async def read_json(self) -> bytes:
        """The body. Raises `MediaTypeError`, or `BodyTooLargeError` without reading past the bound."""
        self._check_media_type()
        announced = self.header(b"content-length") or ""
        if announced.isdigit() and int(announced) > limits.MAX_BODY_BYTES:
            raise _too_large()
        parts, size, more = [], 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limits.MAX_BODY_BYTES:
                raise _too_large()
            more = message.get("more_body", False)
        return b"".join(parts)

    def _check_media_type(self) -> None:
        kind, _, parameters = (self.header(b"content-type") or "").lower().partition(";")
        if kind.strip() != "application/json":
            raise MediaTypeError(
                f"The content type {kind.strip()!r} is not served."
                if kind
                else "The request has no content type.",
                remedy="Send JSON with 'Content-Type: application/json'.",
            )
        charset = _CHARSET.search(parameters)
        if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
            raise MediaTypeError(f"The charset {charset[1]!r} is not served.", remedy="Send UTF-8.")
        coding = ", ".join(self.headers(b"content-encoding")).strip().lower()
        if coding not in ("", "identity"):
            raise MediaTypeError(
                f"The content encoding {coding!r} is not served.", remedy="Send the body uncompressed."
            )

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the client is gone; never after a complete answer."""
        self.direct_writer.on_gone(callback)

    async def respond(
        self, status: int, body: bytes, *, headers: Headers | None = None, kind: bytes | None = None
    ) -> None:
        """A whole answer; JSON unless `kind` says otherwise."""
        content = (b"content-type", kind) if kind else _JSON
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [content, length, *(headers or [])])
        await self._send({"type": "http.response.body", "body": body})

    async def fail(self, error: TrimtabError) -> None:
        await self.respond(error.status, error_body(error), headers=error_headers(error))

    async def open_stream(self) -> Callable[[bytes], Awaitable[None]]:
        """Answer 200 with server-sent events; returns what writes a piece of the stream."""
        return await self._open(_STREAM)

    async def open_body(self) -> Callable[[bytes], Awaitable[None]]:
        """Answer 200 with JSON whose length is not known yet; returns what writes a piece of it."""
        return await self._open([_JSON])

    async def _open(self, headers: Headers) -> Callable[[bytes], Awaitable[None]]:
        await self._start(200, headers)
        send = self._send

        def write(data: bytes) -> Awaitable[None]:
            return send({"type": "http.response.body", "body": data, "more_body": True})

        return write

    @property
    def direct_writer(self) -> DirectWriter:
        return self._scope["extensions"][DIRECT_WRITE]

    async def close_stream(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data})

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        extra = [(b"x-request-id", self.id.encode()), *self.extra_headers]
        if self.marks:
            timing = ", ".join(f"{name};dur={span}" for name, span in self.timing().items())
            extra.append((b"server-timing", timing.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *extra]})


def _too_large() -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The request body is larger than {limits.MAX_BODY_BYTES} bytes.", remedy="Send less at once."
    )
