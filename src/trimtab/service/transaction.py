"""One request and its answer on a connection, between HTTP and ASGI.

Each has an h11 parser of its own, which is fed its head and its body and nothing else. The answer is framed here: all
its headers are ours. Tokens of a stream are written with no task and no coroutine.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

import h11

from trimtab.service import limits
from trimtab.service.errors import origin
from trimtab.service.exchange import DIRECT_WRITE, Headers
from trimtab.service.http_head import END, announced_length, malformed, protocol_fault, read_head, wants_more

Message = MutableMapping[str, Any]
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in http.HTTPStatus
}
# More of a body than this is not read before somebody asks for it.
HIGH_WATER = 2**16
# "1\r\nx\r\n" is the shortest chunk; all but the x is framing.
_CHUNK_FRAMING = 5
_LOG = logging.getLogger(__name__)


class Carrier(Protocol):
    """The connection, as a transaction sees it. `drained` is done when the client has read on; None = write."""

    transport: asyncio.Transport
    drained: asyncio.Future[None] | None

    @property
    def headers(self) -> Headers:
        """What every answer begins with."""
        ...

    @property
    def ending(self) -> bool:
        """Whether this answer is the connection's last."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def answered(self) -> None:
        """The answer is complete."""
        ...


class Transaction:
    """`received`: the body is whole. `answered`: the answer is. `gone`: nobody is there; nothing more is written.

    Raises what `read_head` raises. It is also the `DirectWriter` of its answer.
    """

    __slots__ = (
        "_announced",
        "_bodiless",
        "_body",
        "_callbacks",
        "_carrier",
        "_chunked",
        "_delivered",
        "_direct",
        "_expects",
        "_fed",
        "_framing",
        "_is_closing",
        "_method",
        "_parser",
        "_payload",
        "_tail",
        "_unsent",
        "_waiter",
        "_write",
        "answered",
        "gone",
        "keeps_alive",
        "received",
        "scope",
        "started",
    )

    def __init__(self, carrier: Carrier, head: bytes) -> None:
        self._parser = h11.Connection(h11.SERVER, limits.MAX_HEADER_BYTES)
        request, self.scope = read_head(self._parser, head)
        self.scope["extensions"] = {DIRECT_WRITE: self}
        self.keeps_alive = wants_more(request)
        self._announced = min(announced_length(request), limits.MAX_BODY_BYTES)
        self._expects = self._parser.they_are_waiting_for_100_continue
        self._carrier, self._method = carrier, request.method
        self._write, self._is_closing = carrier.transport.write, carrier.transport.is_closing
        self._body, self._tail, self._unsent = bytearray(), b"", b""
        self._fed = self._payload = self._framing = 0
        self._waiter: asyncio.Future[None] | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._chunked = self._bodiless = self._delivered = self._direct = False
        self.received = self.started = self.answered = self.gone = False

    @property
    def may_still_hold(self) -> int:
        """Bytes of a body that is on its way, at most."""
        return 0 if self.received or self.answered or self.gone else self._announced

    # What comes

    def feed(self, data: bytes) -> bytes:
        """Take in bytes of the body; once it is `received`, what follows it. Raises `UsageError` for broken framing.

        Trailers are bounded and dropped.
        """
        parser = self._parser
        if data:
            parser.receive_data(data)
            self._fed += len(data)
        try:
            while True:
                event = parser.next_event()
                if isinstance(event, h11.Data):
                    self._take(event)
                else:
                    break
        except h11.RemoteProtocolError as error:
            raise protocol_fault(error) from error
        rest = b""
        if isinstance(event, h11.EndOfMessage):
            rest = parser.trailing_data[0]
            self._check_end(data, len(rest))
            self.received = True
            self._expects = False
            self._carrier.resume_reading()  # from here on to notice that the client leaves
            self._wake()
        # Between two events h11 holds no data back, so all that was no data was framing.
        if self._fed - self._payload - len(rest) > limits.MAX_FRAMING_BYTES:
            raise _too_much_framing()
        self._tail = (self._tail + data[-len(END) :])[-len(END) :]
        return rest

    def _take(self, event: h11.Data) -> None:
        data = event.data
        self._payload += len(data)
        self._expects = False
        if event.chunk_start:
            self._framing += _CHUNK_FRAMING
            if self._framing > limits.MAX_FRAMING_BYTES:
                raise _too_much_framing()
        if not (self.answered or self.gone):
            self._body += data
            if len(self._body) > HIGH_WATER:
                self._carrier.pause_reading()
            self._wake()

    def _check_end(self, data: bytes, rest: int) -> None:
        """h11 lets trailers end with bare line feeds, which others read on."""
        if self._payload != self._fed - rest:
            end = (self._tail + data)[: len(self._tail) + len(data) - rest]
            if not end.endswith(END):
                raise malformed("the chunked body does not end with CR LF")

    def leave(self) -> None:
        """The client is gone, or answered otherwise: whoever works on this is told."""
        if self.gone or self.answered:
            return
        self.gone, self._direct = True, False
        self._wake()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_gone(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the client leaves before the answer is complete; at once if it has left."""
        if self.gone:
            callback()
        else:
            self._callbacks.append(callback)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # ASGI

    async def run(self, application: Callable[..., Awaitable[None]]) -> None:
        try:
            await application(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._carrier.transport.abort()
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a library may panic past Exception; it costs this request alone
            _LOG.error("a request failed: %s", origin(error))
        if self.gone or self.answered:
            return
        if self.started and not self._unsent:
            self._carrier.transport.abort()
            return
        self.started = False
        await self.send(
            {"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]}
        )
        await self.send({"type": "http.response.body"})

    async def receive(self) -> Message:
        if self._expects and not (self.started or self.gone or self._is_closing()):
            self._expects = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.gone or self.answered or self._body or (self.received and not self._delivered)):
            self._carrier.resume_reading()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.gone or self.answered:
            return {"type": "http.disconnect"}
        self._carrier.resume_reading()
        body, self._body, self._delivered = bytes(self._body), bytearray(), self.received
        return {"type": "http.request", "body": body, "more_body": not self.received}

    async def send(self, message: Message) -> None:
        while self._carrier.drained is not None and not self.gone:
            await asyncio.shield(self._carrier.drained)
        if self.gone or self._is_closing():
            return
        if self.answered or (message["type"] == "http.response.start") == self.started:
            raise RuntimeError(f"{message['type']} at the wrong place of an answer.")
        if self.started:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            self._send_head(message["status"], message.get("headers", []))

    def _send_head(self, status: int, headers: Headers) -> None:
        headers = [*self._carrier.headers, *headers]
        self._bodiless = self._method == b"HEAD" or status in (204, 304)
        if not (self._bodiless or any(name == b"content-length" for name, _ in headers)):
            # Without a length the body ends with its last chunk or, for HTTP/1.0, with the connection.
            if self.scope["http_version"] == "1.1":
                self._chunked = True
                headers.append((b"transfer-encoding", b"chunked"))
            else:
                self.keeps_alive = False
        # Who waits to be told to send a body may send it or not: only the end of the connection is plain.
        if self._expects or self._carrier.ending:
            self.keeps_alive = False
        if not self.keeps_alive:
            headers.append((b"connection", b"close"))
        # It travels with the first of the body: a write costs more than all that is done here.
        self._unsent = answer_head(status, headers)
        self.started = True

    def _send_body(self, data: bytes, *, more: bool) -> None:
        if self._bodiless:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if not more:
                data += b"0\r\n\r\n"
        if self._unsent:
            data, self._unsent, self._direct = self._unsent + data, b"", self._chunked
        if data:
            self._write(data)
        if not more:
            self.answered, self._direct = True, False
            self._callbacks.clear()
            self._body.clear()
            self._wake()
            self._carrier.answered()

    # Direct writing

    def ready(self) -> bool:
        return self._direct and self._carrier.drained is None and not self._is_closing()

    def write(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))


def answer_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([_STATUS_LINES[status], *lines, b"\r\n"])


def _too_much_framing() -> Exception:
    return malformed(
        f"the body has over {limits.MAX_FRAMING_BYTES} bytes of chunk sizes, extensions and trailers"
    )
