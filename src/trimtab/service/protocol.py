"""uvicorn's HTTP protocol, with the bounds that it lacks: on slow or endless headers, bodies and readers.

A client gets ten seconds for the headers, thirty for the body, and thirty to read when our side of the
socket is full. What cannot be parsed is answered like every other fault.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from trimtab.service import limits
from trimtab.service.errors import error_body
from trimtab.service.exchange import DIRECT_WRITE
from trimtab.spec.errors import OverloadedError, TrimtabError, UsageError
from trimtab.spec.ids import request_id


class HeadersTooLargeError(UsageError):
    status, code = 431, "headers_too_large"


class _DirectWriter:
    """`exchange.DirectWriter` on one answer: every token of a stream goes this way, with no task and no coroutine."""

    __slots__ = ("_cycle", "_flow", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._flow, self._write = cycle, cycle.flow, cycle.transport.write

    def ready(self) -> bool:
        cycle = self._cycle
        waits = self._flow.write_paused or cycle.disconnected or cycle.response_complete
        return not waits and bool(cycle.chunked_encoding)

    def write(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))


class BoundedProtocol(HttpToolsProtocol):
    """One connection: which deadline runs, how many bytes of headers came, how many were dropped."""

    # Of the whole service; a gateway that may open fewer files lowers it.
    max_connections = limits.MAX_CONNECTIONS
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_headers = True
    _header_bytes = 0
    _dropped_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyrefly: ignore[bad-override]
        super().connection_made(transport)
        self._set_deadline(limits.HEADERS_SECONDS)
        if len(self.connections) > self.max_connections:
            self._refuse(OverloadedError("The service has too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_deadline(None)
        self._set_stalled(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > limits.MAX_HEADER_BYTES and self.parser is not None:
            self._refuse(HeadersTooLargeError(f"The headers are over {limits.MAX_HEADER_BYTES} bytes."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._set_deadline(limits.HEADERS_SECONDS)

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        self._set_deadline(limits.BODY_SECONDS)
        if len(self.headers) > limits.MAX_HEADERS:
            self._refuse(HeadersTooLargeError(f"There are more than {limits.MAX_HEADERS} headers."))
            return
        super().on_headers_complete()
        self.scope["extensions"] = {DIRECT_WRITE: _DirectWriter(self.cycle)}  # pyrefly: ignore[bad-assignment]

    def on_body(self, body: bytes) -> None:
        if self.cycle is None or self.transport.is_closing():
            return
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
            if self._dropped_bytes > limits.MAX_DRAIN_BYTES:
                self.transport.abort()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_headers = True
        self._set_deadline(None)
        if self.cycle is not None:
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_stalled(limits.STALLED_READER_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_stalled(None)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        self._refuse(UsageError("This is not an HTTP/1.1 request."))

    def _refuse(self, error: TrimtabError) -> None:
        """Answer outside of a request, and close."""
        if self.transport.is_closing():
            return
        body = error_body(error)
        head: list[bytes] = [
            STATUS_LINE[error.status],
            b"content-type: application/json\r\nconnection: close\r\n",
            b"content-length: %d\r\nx-request-id: %b\r\n\r\n" % (len(body), request_id().encode()),
        ]
        self.transport.write(b"".join([*head, body]))
        self.transport.close()

    def _set_deadline(self, seconds: float | None) -> None:
        self._deadline = self._replace(self._deadline, seconds)

    def _set_stalled(self, seconds: float | None) -> None:
        self._stalled = self._replace(self._stalled, seconds)

    def _replace(
        self, timer: asyncio.TimerHandle | None, seconds: float | None
    ) -> asyncio.TimerHandle | None:
        if timer is not None:
            timer.cancel()
        return None if seconds is None else self.loop.call_later(seconds, self._cut)

    def _cut(self, *_: Any) -> None:
        self.transport.abort()
