"""The load client: raw sockets, one thread, one selector, HTTP/1.1 keep-alive. It must cost next to nothing.

On few cores the client's time is taken from the service's, and a library can spend more on a chunk than a
small model on a token. A closed loop, or requests that leave at random moments. Connections are opened before
the clock starts.
"""

from __future__ import annotations

import gc
import itertools
import random
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from trimtab.bench.answers import Answer
from trimtab.bench.job import Job, Outcome
from trimtab.spec.errors import EngineError

_READ_BYTES = 1 << 13


def render(job: Job) -> Iterator[bytes]:
    """The requests of a job, head and body, in order. Deterministic in `job.seed`."""
    generator = random.Random(job.seed)  # noqa: S311 -- prompts, not secrets
    for tokens in job.answers or (job.output_tokens,) * job.requests:
        body = msgspec.json.encode(
            {
                "model": job.model,
                "prompt": generator.choices(range(job.vocabulary_size), k=job.prompt_tokens),
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        head = (
            f"POST {job.path} HTTP/1.1\r\nHost: {job.host}:{job.port}\r\n"
            f"Authorization: Bearer {job.key}\r\nContent-Type: application/json\r\n"
            f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body


def arrivals(job: Job) -> list[float]:
    """When the requests of an open loop are due, in seconds from its start: exponential gaps, by `job.seed`."""
    generator = random.Random(~job.seed)  # noqa: S311 -- moments, not secrets
    return list(itertools.accumulate(generator.expovariate(job.rate or 1.0) for _ in range(job.requests)))


class _Connection:
    """One keep-alive connection and the request it is busy with."""

    __slots__ = ("answer", "begun", "outgoing", "receive", "socket")

    def __init__(self, job: Job) -> None:
        self.open(job)

    def open(self, job: Job) -> None:
        try:
            self.socket = socket.create_connection((job.host, job.port), timeout=10)
        except OSError as error:
            raise EngineError(
                f"nothing answers: {error.strerror or error}.",
                where=f"{job.host}:{job.port}",
                remedy="Is the service running?",
            ) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.receive = self.socket.recv
        self.outgoing = memoryview(b"")

    def begin(self, request: bytes) -> None:
        self.answer = Answer()
        self.outgoing = memoryview(request)
        self.begun = time.perf_counter()
        self.flush()

    def flush(self) -> None:
        """Send what the kernel takes; a long prompt may need several turns."""
        try:
            self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]
        except BlockingIOError:
            return
        except OSError as error:
            raise EngineError(f"the service closed a connection: {error.strerror}.", where="load") from error


class _ClosedLoop:
    """Each connection sends its next request as soon as its last one is answered."""

    def __init__(self, job: Job, selector: selectors.BaseSelector) -> None:
        self._job, self._selector = job, selector
        self._requests = iter(list(render(job)))
        self.first: list[float] = []
        self.rest: list[float] = []
        self.tokens: list[int] = []
        self.events = 0

    def _next(self, connection: _Connection) -> None:
        """Give a free connection its next request, or let it go when there is none."""
        request = next(self._requests, None)
        if request is None:
            self._selector.unregister(connection.socket)
            return
        connection.begin(request)
        self._watch(connection)

    def _watch(self, connection: _Connection) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if len(connection.outgoing) else 0)
        if self._selector.get_key(connection.socket).events != wanted:
            self._selector.modify(connection.socket, wanted, connection)

    def _finish(self, connection: _Connection, now: float) -> None:
        answer = connection.answer
        self.tokens.append(answer.tokens())
        first = answer.first if answer.first is not None else now
        self.first.append(first - connection.begun)
        self.rest.append(now - first)
        self.events += answer.events
        self._next(connection)

    def run(self, connections: list[_Connection]) -> None:
        for connection in connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._next(connection)
        watched = self._selector.get_map()
        while watched:
            if not self._turn(self._job.timeout_seconds):
                raise self._silence()

    def _turn(self, seconds: float) -> bool:
        """Serve what is ready within `seconds`; False if nothing was."""
        clock = time.perf_counter
        ready = self._selector.select(seconds)
        for key, mask in ready:
            connection: _Connection = key.data
            if mask & selectors.EVENT_WRITE:
                connection.flush()
                self._watch(connection)
            if mask & selectors.EVENT_READ:
                try:
                    data = connection.receive(_READ_BYTES)
                except OSError as error:
                    raise EngineError(f"a connection broke: {error.strerror}.", where="load") from error
                if not data:
                    self._lose(connection)
                    continue
                now = clock()
                if connection.answer.take(data, now):
                    self._finish(connection, now)
        return bool(ready)

    def _lose(self, connection: _Connection) -> None:  # noqa: ARG002 - the open loop looks at it
        raise EngineError("the service closed a connection in mid-answer.", where="load")

    def _silence(self) -> EngineError:
        return EngineError(
            f"no byte came for {self._job.timeout_seconds:.0f} s.",
            where="load",
            remedy="See the service's log.",
        )


class _OpenLoop(_ClosedLoop):
    """Requests leave when they are due. One that finds no free connection waits, and its wait counts."""

    def __init__(self, job: Job, selector: selectors.BaseSelector) -> None:
        super().__init__(job, selector)
        self._free: list[_Connection] = []

    def _next(self, connection: _Connection) -> None:
        self._free.append(connection)

    def run(self, connections: list[_Connection]) -> None:
        for connection in connections:
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)
            self._next(connection)
        clock, timeout = time.perf_counter, self._job.timeout_seconds
        due = [clock() + offset for offset in reversed(arrivals(self._job))]
        heard = clock()
        while due or len(self._free) < len(connections):
            while due and self._free and due[-1] <= clock():
                self._send(due.pop())
            wait = min(timeout, max(0.0, due[-1] - clock())) if due and self._free else timeout
            heard = clock() if self._turn(wait) or len(self._free) == len(connections) else heard
            if clock() - heard > timeout:
                raise self._silence()

    def _lose(self, connection: _Connection) -> None:
        """A service may close what was idle for long; it is opened again."""
        if connection not in self._free:
            super()._lose(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        connection.open(self._job)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _send(self, due: float) -> None:
        connection = self._free.pop()
        connection.begin(next(self._requests))
        connection.begun = due
        self._watch(connection)


def drive(job: Job) -> Outcome:
    """Run one job. Raises `EngineError` with the service's own message where it refuses or fails."""
    with ExitStack() as stack:
        # epoll waits in whole milliseconds, which is too coarse for moments; select does not.
        kind = selectors.DefaultSelector if job.rate is None else selectors.SelectSelector
        selector = stack.enter_context(kind())
        loop = _ClosedLoop(job, selector) if job.rate is None else _OpenLoop(job, selector)
        connections = []
        for _ in range(min(job.concurrency, job.requests)):
            connection = _Connection(job)
            stack.callback(lambda connection=connection: connection.socket.close())
            connections.append(connection)
        gc.collect()
        gc.disable()
        stack.callback(gc.enable)
        cpu, begun = time.process_time(), time.perf_counter()
        loop.run(connections)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return Outcome(
        wall_seconds=wall,
        cpu_seconds=cpu,
        events=loop.events,
        first=tuple(loop.first),
        rest=tuple(loop.rest),
        tokens=tuple(loop.tokens),
    )
