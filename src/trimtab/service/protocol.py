"""HTTP/1.0 and 1.1 on one connection: one request at a time, and for each of its phases one deadline.

A connection waits for a request (IDLE), for the end of its head (HEAD), for that of its body (BODY), for our answer
(ANSWER); then it waits again, or lets the client see a refusal (LINGER) and closes (CLOSING). A deadline is set where
a phase begins, and no byte moves it. Reading goes on while an answer runs, because only so the client's leaving is
noticed; what it sends ahead waits within a bound. When all places are taken, whoever has been waited for the longest
makes room for who comes.
"""

from __future__ import annotations

import asyncio
import re
from enum import Enum
from typing import TYPE_CHECKING, Any

from trimtab.service import limits
from trimtab.service.errors import SlowClientError, error_body, error_headers
from trimtab.service.exchange import Headers
from trimtab.service.http_head import END, check_beginning, malformed
from trimtab.service.transaction import Transaction, answer_head
from trimtab.spec.errors import OverloadedError, TrimtabError
from trimtab.spec.ids import request_id

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_BLANK_LINES = re.compile(rb"(?:\r\n)+")


class Phase(Enum):
    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    LINGER = "linger"
    CLOSING = "closing"


class BoundedProtocol(asyncio.Protocol):
    """One connection of uvicorn's server, which makes it, counts it, and calls `shutdown` at the end."""

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn's signature
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._application, self._state = config.loaded_app, server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._phase, self.since = Phase.HEAD, 0.0
        self._transaction: Transaction | None = None
        self._buffer = bytearray()  # what came and belongs to no request yet
        self._blank = self._dropped = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._reading_paused = self._deaf = self.ending = False
        self.drained: asyncio.Future[None] | None = None

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # pyrefly: ignore[bad-assignment]
        self._state.connections.add(self)  # pyrefly: ignore[bad-argument-type]
        self._enter(Phase.HEAD, limits.HEADERS_SECONDS)
        if len(self._state.connections) > limits.MAX_CONNECTIONS and not self._make_room():
            self.refuse(OverloadedError("The service has too many connections."))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._state.connections.discard(self)  # pyrefly: ignore[bad-argument-type]
        self._enter(Phase.CLOSING, None)
        self.resume_writing()
        self._abandon()

    def eof_received(self) -> None:
        """The client has closed, or its sending half, which looks the same: transports close on None."""

    def data_received(self, data: bytes) -> None:
        transaction = self._transaction
        if self._deaf or self._phase in (Phase.LINGER, Phase.CLOSING):
            self._drop(len(data))
        elif transaction is not None and not transaction.received:
            self._read_body(transaction, data)
        else:
            self._buffer += data
            if transaction is None:
                self._read_head()
            elif len(self._buffer) > limits.MAX_PIPELINED_BYTES:
                self._deaf = self.ending = True
                self._buffer.clear()

    def pause_writing(self) -> None:
        if self.drained is None:
            self.drained = self._loop.create_future()
            self._stalled = self._loop.call_later(limits.STALLED_READER_SECONDS, self.transport.abort)
            self.since = self._loop.time()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        drained, self.drained = self.drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # uvicorn

    def shutdown(self) -> None:
        """A running answer may end; nothing follows it."""
        self.ending = True
        if self._transaction is None or self._transaction.answered:
            self._close()

    # What comes

    def _read_head(self) -> None:
        """Begin the next request, if its head is here."""
        buffer = self._buffer
        if blank := _BLANK_LINES.match(buffer):
            del buffer[: blank.end()]
            self._blank += blank.end()
            if self._blank > limits.MAX_BLANK_BYTES:
                self.refuse(malformed("it begins with empty lines"))
                return
        if not buffer or buffer == b"\r":
            return
        end = buffer.find(END)
        try:
            if end < 0:
                check_beginning(buffer)
                if self._phase is Phase.IDLE:
                    self._enter(Phase.HEAD, limits.HEADERS_SECONDS)
                return
            end += len(END)
            head, rest = bytes(buffer[:end]), bytes(buffer[end:])
            buffer.clear()
            self._transaction = Transaction(self, head)
        except TrimtabError as error:
            self.refuse(error)
            return
        self._start(self._transaction, rest)

    def _start(self, transaction: Transaction, rest: bytes) -> None:
        self._blank = self._dropped = 0
        self._read_body(transaction, rest)
        if self._transaction is not transaction:
            return
        if not transaction.received:
            self._enter(Phase.BODY, limits.BODY_SECONDS)
            self._make_room_for_body()
        task = self._loop.create_task(transaction.run(self._application))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _read_body(self, transaction: Transaction, data: bytes) -> None:
        if transaction.answered and not self._drop(len(data)):
            return
        try:
            rest = transaction.feed(data)
        except TrimtabError as error:
            self.refuse(error)
            return
        if transaction.received:
            self._buffer += rest
            if transaction.answered:
                self._next()
            else:
                self._enter(Phase.ANSWER, None)

    def _drop(self, count: int) -> bool:
        """Count bytes that nobody wants; False once they are too many."""
        self._dropped += count
        if self._dropped > limits.MAX_DRAIN_BYTES:
            self.transport.abort()
            return False
        return True

    # What a transaction asks for

    @property
    def headers(self) -> Headers:
        return self._state.default_headers

    def pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resume_reading()

    def answered(self) -> None:
        self._state.total_requests += 1
        self.resume_reading()
        transaction = self._transaction
        if transaction is not None and (transaction.received or not transaction.keeps_alive):
            self._next()

    def _next(self) -> None:
        """A request is answered, and received unless nothing may follow it."""
        transaction, self._transaction = self._transaction, None
        if transaction is None or self.transport.is_closing():
            return
        if not transaction.keeps_alive or self.ending:
            unread = self._deaf or self._buffer or not transaction.received
            self._linger() if unread else self._close()
            return
        self._enter(Phase.IDLE, limits.IDLE_SECONDS)
        if self._buffer:
            self._read_head()

    # Ends

    def _enter(self, phase: Phase, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._phase, self.since = phase, self._loop.time()
        self._deadline = None if seconds is None else self._loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        transaction = self._transaction
        begun = bool(self._buffer) if transaction is None else not (transaction.started or transaction.gone)
        if self._phase is Phase.IDLE or (self._phase is Phase.HEAD and not begun):
            self._close()
        elif self._phase in (Phase.HEAD, Phase.BODY) and begun:
            self.refuse(SlowClientError("The request did not arrive in time.", remedy="Send it at once."))
        else:
            self.transport.abort()

    @property
    def _all(self) -> list[BoundedProtocol]:
        return list(self._state.connections)  # pyrefly: ignore[bad-return]

    def _make_room(self) -> bool:
        """Cut who has been waited for the longest. False if all are being worked for."""
        waited = [each for each in self._all if each is not self and each.is_waited_for]
        if not waited:
            return False
        longest = min(waited, key=lambda each: each.since)
        self._state.connections.discard(longest)  # pyrefly: ignore[bad-argument-type]
        longest.transport.abort()
        return True

    def _make_room_for_body(self) -> None:
        bodies = [each for each in self._all if each.may_still_hold]
        held = sum(each.may_still_hold for each in bodies)
        for each in sorted(bodies, key=lambda each: each.since):
            if held <= limits.MAX_BODIES_BYTES or each is self:
                break
            held -= each.may_still_hold
            each.refuse(OverloadedError("The service is taking in too many bodies at once."))

    @property
    def may_still_hold(self) -> int:
        return 0 if self._transaction is None else self._transaction.may_still_hold

    @property
    def is_waited_for(self) -> bool:
        """It is the client's turn: to send a request, or to read."""
        return self._phase is not Phase.ANSWER or self.drained is not None

    def refuse(self, error: TrimtabError) -> None:
        """Answer outside of an application, and end."""
        transaction = self._transaction
        self._abandon()
        if self.transport.is_closing():
            return
        if transaction is not None and transaction.started:
            self._linger() if transaction.answered else self.transport.abort()
            return
        body = error_body(error)
        headers = [
            *self._state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id().encode()),
            *error_headers(error),
        ]
        self.transport.write(answer_head(error.status, headers) + body)
        self._linger()

    def _abandon(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.leave()

    def _linger(self) -> None:
        """Say that nothing more comes, and read on: closing on unread bytes would take our answer from the client."""
        self._enter(Phase.LINGER, limits.LINGER_SECONDS)
        self._buffer.clear()
        self.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        """Close once the client has read everything, or has not in time."""
        self._enter(Phase.CLOSING, limits.STALLED_READER_SECONDS)
        self.transport.close()
