"""Phases, framing and the client's leaving, on real sockets, under an application that does what its path says."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import raw_http as http
import uvicorn

from trimtab.service import limits, transaction
from trimtab.service.exchange import DIRECT_WRITE
from trimtab.service.protocol import BoundedProtocol


class PanicError(BaseException):
    """As native libraries raise it."""


class Application:
    """Notes what it is asked. /echo, /deaf (does not read), /length; /wait and /work until the client leaves;
    /stream; /fail, /panic, /begun and /half go wrong.
    """

    def __init__(self):
        self.asked, self.bodies, self.headers, self.left = [], [], [], []
        self.release = threading.Event()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        self.asked.append(path)
        self.headers.append(dict(scope["headers"]))
        if path == "/fail":
            raise ValueError("a user's words")
        if path == "/panic":
            raise PanicError("a user's words")
        if path != "/deaf":
            body = await self._body(receive)
            if body is None:
                self.left.append(path)
                return
            self.bodies.append(body)
        if path in ("/wait", "/work"):
            await self._until_left(scope, receive)
        else:
            await self._answer(scope, send)

    async def _answer(self, scope, send):
        path = scope["path"]
        length = [(b"content-length", b"4")] if path in ("/echo", "/deaf", "/length") else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if path == "/begun":
            return
        if path == "/half":
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            return
        if path == "/stream":
            await self._stream(scope, send)
        await send({"type": "http.response.body", "body": b"fine"})

    async def _body(self, receive):
        parts, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message["body"])
            more = message["more_body"]
        return b"".join(parts)

    async def _until_left(self, scope, receive):
        """By ASGI's news, or by the callback alone, as a handler that works learns of it."""
        path = scope["path"]
        if path == "/wait":
            if (await receive())["type"] == "http.disconnect":
                self.left.append(path)
            return
        gone = asyncio.get_running_loop().create_future()
        scope["extensions"][DIRECT_WRITE].on_gone(lambda: gone.set_result(None))
        await gone
        self.left.append(path)

    async def _stream(self, scope, send):
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        writer = scope["extensions"][DIRECT_WRITE]
        writer.on_gone(lambda: self.left.append("/stream"))
        while not self.release.is_set() and "/stream" not in self.left:
            await asyncio.sleep(0.01)
            if writer.ready():
                writer.write(b"more ")


class Running:
    def __init__(self, port, application, server):
        self.port, self.application, self.server = port, application, server

    def connect(self):
        return http.connect(self.port)

    @property
    def connections(self):
        return len(self.server.server_state.connections)


@pytest.fixture
def edge(monkeypatch):
    """Half a second for each phase, and places for eight."""
    for name in (
        "HEADERS_SECONDS",
        "BODY_SECONDS",
        "IDLE_SECONDS",
        "STALLED_READER_SECONDS",
        "LINGER_SECONDS",
    ):
        monkeypatch.setattr(limits, name, 0.5)
    monkeypatch.setattr(BoundedProtocol, "max_connections", 8)
    application, listener = Application(), socket.create_server(("127.0.0.1", 0))
    options = {"ws": "none", "lifespan": "off", "log_config": None, "access_log": False}
    server = uvicorn.Server(uvicorn.Config(application, http=BoundedProtocol, **options))
    server.capture_signals = contextlib.nullcontext

    def serve():
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))

    thread = threading.Thread(target=serve)
    thread.start()
    yield Running(listener.getsockname()[1], application, server)
    application.release.set()
    server.should_exit = server.force_exit = True
    thread.join()
    listener.close()


ECHO = http.head("POST", "/echo", body=b"hi")
WAIT = http.head("GET", "/wait")
CHUNKED = http.head("POST", "/echo", headers=["Transfer-Encoding: chunked"])


# Deadlines


@pytest.mark.parametrize("used", [False, True])
def test_empty_lines_between_requests_keep_no_connection_alive(edge, used):
    with edge.connect() as raw:
        if used:
            raw.sendall(ECHO)
            http.answer(raw)
        assert 0.3 < http.closed_after(raw, b"\r\n") < 2


def test_an_empty_line_before_a_request_is_overlooked_and_many_are_not(edge):
    with edge.connect() as raw:
        raw.sendall(ECHO + b"\r\n" + ECHO)
        assert http.answers(raw, 2) == [200, 200]
        raw.sendall(b"\r\n" * 100 + ECHO)
        assert http.statuses(http.rest(raw)) == [400]


@pytest.mark.parametrize(
    "sent", [b"POST /echo HTTP/1.1\r\nHo", ECHO[:-1], CHUNKED + b"5\r\nab", CHUNKED + b"0\r\nx: "]
)
def test_who_does_not_finish_is_told_so_and_cut(edge, sent, until):
    with edge.connect() as raw:
        raw.sendall(sent)
        assert http.statuses(http.rest(raw)) == [408]
    assert until(lambda: edge.connections == 0, 2)


def test_a_connection_that_was_never_used_is_closed_without_a_word(edge):
    with edge.connect() as raw:
        assert http.rest(raw) == b""


def test_no_timer_outlives_a_connection(edge, until):
    raws = [edge.connect() for _ in range(5)]
    for raw in raws:
        raw.sendall(ECHO)
        http.answer(raw)
        http.reset(raw)
    assert until(lambda: edge.connections == 0, 0.3)


# Places


@pytest.mark.parametrize("sent", [b"", b"GET /wai", ECHO[:-1], b"nonsense\r\n\r\n", ECHO])
def test_when_all_places_are_held_by_who_sends_nothing_the_next_is_served_at_once(edge, sent, monkeypatch):
    for name in ("HEADERS_SECONDS", "BODY_SECONDS", "IDLE_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(limits, name, 30)
    holders = [edge.connect() for _ in range(20)]
    for raw in holders:
        with contextlib.suppress(OSError):  # those that came first are cut already
            raw.sendall(sent)
    time.sleep(0.1)
    begun = time.monotonic()
    with edge.connect() as raw:
        raw.sendall(ECHO)
        assert http.answer(raw)[0] == 200
    assert time.monotonic() - begun < 0.5
    assert edge.connections <= BoundedProtocol.max_connections + 1  # one that was refused and lingers
    for raw in holders:
        raw.close()


def test_when_all_places_are_worked_for_the_next_is_told_when_to_come_back(edge, until):
    holders = [edge.connect() for _ in range(8)]
    for raw in holders:
        raw.sendall(WAIT)
    assert until(lambda: len(edge.application.asked) == 8, 2)
    with edge.connect() as raw:
        raw.sendall(ECHO)
        top, _, _ = http.rest(raw).partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in top
    assert b"x-request-id: req_" in top
    for raw in holders:
        raw.close()
    assert until(lambda: len(edge.application.left) == 8, 2)


def test_bodies_on_their_way_share_their_memory_and_who_began_first_makes_room(edge, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BODIES_BYTES", 2 * limits.MAX_BODY_BYTES)
    long = http.head("POST", "/echo", headers=[f"Content-Length: {limits.MAX_BODY_BYTES}"])
    first, second, third = edge.connect(), edge.connect(), edge.connect()
    for raw, head in ((first, long), (second, CHUNKED), (third, long)):
        raw.sendall(head)
        time.sleep(0.05)
    assert http.statuses(http.rest(first)) == [429]
    third.sendall(b"x" * limits.MAX_BODY_BYTES)
    assert http.answer(third)[0] == 200
    second.sendall(b"2\r\nhi\r\n0\r\n\r\n")
    assert http.answer(second)[0] == 200
    for raw in (first, second, third):
        raw.close()


# Leaving


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("behind", [b"", ECHO, ECHO * 3, b"GET /ec", b"x" * 2**20])
def test_leaving_is_noticed_whatever_was_sent_behind_a_request(edge, until, end, behind):
    raw = edge.connect()
    raw.sendall(WAIT + behind)
    assert until(lambda: edge.application.asked == ["/wait"], 2)
    raw.close() if end == "close" else http.reset(raw)
    assert until(lambda: edge.application.left == ["/wait"], 1)
    assert edge.application.asked == ["/wait"]


def test_leaving_a_stream_stops_its_writer(edge, until):
    raw = edge.connect()
    raw.sendall(http.head("GET", "/stream") + ECHO)
    http.until(raw, b"one ")
    http.reset(raw)
    assert until(lambda: edge.application.left == ["/stream"], 1)
    assert edge.application.asked == ["/stream"]


@pytest.mark.parametrize("headers", [[], ["Transfer-Encoding: chunked"]])
def test_leaving_behind_a_large_body_is_noticed(edge, until, headers, monkeypatch):
    monkeypatch.setattr(transaction, "HIGH_WATER", 100)
    body = b"x" * 0x300
    raw = edge.connect()
    if headers:
        chunk = b"300\r\n" + body + b"\r\n0\r\n\r\n"
        raw.sendall(http.head("POST", "/work", headers=headers) + chunk)
    else:
        raw.sendall(http.head("POST", "/work", body=body))
    assert until(lambda: edge.application.bodies == [body], 2)
    raw.close()
    assert until(lambda: edge.application.left == ["/work"], 1)


def test_leaving_in_mid_body_is_noticed(edge, until):
    raw = edge.connect()
    raw.sendall(ECHO[:-1])
    assert until(lambda: edge.application.asked, 2)
    raw.close()
    assert until(lambda: edge.application.left == ["/echo"], 1)


# One after the other


def test_pipelined_requests_are_answered_in_order_one_at_a_time(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/stream") + ECHO + http.head("GET", "/length"))
        time.sleep(0.2)
        assert edge.application.asked == ["/stream"]
        edge.application.release.set()
        data = b""
        while data.count(b"fine") < 3:
            data += raw.recv(1000)
    assert http.statuses(data) == [200, 200, 200]
    assert edge.application.asked == ["/stream", "/echo", "/length"]


def test_no_deadline_of_the_edge_ends_an_answer_in_work(edge):
    """Also not one that was set before, for the request behind which it waits."""
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/stream"))
        http.until(raw, b"one ")
        raw.sendall(http.head("GET", "/stream"))
        time.sleep(1.2)
        edge.application.release.set()
        data = b""
        while data.count(b"fine") < 2:
            data += raw.recv(1000)


@pytest.mark.parametrize("behind", [b"nonsense\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n", b"\0" * 100])
def test_what_is_sent_in_a_running_answer_is_answered_behind_it(edge, behind):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/stream"))
        data = http.until(raw, b"one ")
        raw.sendall(behind)
        time.sleep(0.1)
        edge.application.release.set()
        data += http.rest(raw)
    first, _, second = data.partition(b"0\r\n\r\n")
    assert first.endswith(b"fine\r\n")
    assert http.statuses(second)[0] in (400, 505)


def test_more_than_the_bound_ahead_ends_the_connection_behind_the_answer(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/stream"))
        data = http.until(raw, b"one ")
        raw.sendall(ECHO * (2 * limits.MAX_PIPELINED_BYTES // len(ECHO)))
        time.sleep(0.1)
        edge.application.release.set()
        data += http.rest(raw)
    assert data.endswith(b"0\r\n\r\n")
    assert edge.application.asked == ["/stream"]


def test_nothing_is_run_behind_connection_close(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/length", headers=["Connection: close"]) + ECHO)
        data = http.rest(raw)
    assert http.statuses(data) == [200]
    assert b"connection: close" in data
    assert edge.application.asked == ["/length"]


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_the_body_of_a_request_that_wants_an_upgrade_is_its_body(edge, upgrade):
    hidden = http.head("GET", "/hidden")
    headers = ["Connection: Upgrade", f"Upgrade: {upgrade}"]
    with edge.connect() as raw:
        raw.sendall(http.head("POST", "/echo", headers=headers, body=hidden) + ECHO)
        assert http.answers(raw, 2) == [200, 200]
    assert edge.application.asked == ["/echo", "/echo"]
    assert edge.application.bodies == [hidden, b"hi"]


# Framing


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_chunked_body_ends_where_it_ends_and_trailers_are_no_headers(edge, pieces):
    data = CHUNKED + b"1;a=b\r\nh\r\n1\r\ni\r\n0\r\nAuthorization: Bearer x\r\nx-late: y\r\n\r\n" + ECHO
    with edge.connect() as raw:
        for piece in [data[i::pieces] for i in range(pieces)] if pieces == 1 else [data[:-90], data[-90:]]:
            raw.sendall(piece)
            time.sleep(0.05)
        assert http.answers(raw, 2) == [200, 200]
    assert edge.application.bodies == [b"hi", b"hi"]
    assert all(not {b"authorization", b"x-late"} & set(headers) for headers in edge.application.headers)


def test_a_chunked_body_may_come_byte_by_byte(edge):
    with edge.connect() as raw:
        for byte in CHUNKED + b"2\r\nhi\r\n0\r\na: b\r\n\r\n" + ECHO:
            raw.sendall(bytes([byte]))
        assert http.answers(raw, 2) == [200, 200]


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\nhi\r\n0\r\n\r\n",
        b"-2\r\nhi\r\n0\r\n\r\n",
        b"0x2\r\nhi\r\n0\r\n\r\n",
        b" 2\r\nhi\r\n0\r\n\r\n",
        b"2\r\nhi0\r\n\r\n",
        b"2\r\nhiXX0\r\n\r\n",
        b"\r\n",
        b"2\r\nhi\r\n0\r\n\n",
        b"2\r\nhi\r\n0\r\na: b\n\n",
        b"2\r\nhi\r\n0\r\na: b\n\r\n",
        b"2\r\nhi\r\n0\r\nno colon\r\n\r\n",
        b"f" * 30 + b"\r\n",
    ],
)
def test_broken_chunks_are_refused_and_nothing_behind_them_is_run(edge, body):
    with edge.connect() as raw:
        raw.sendall(CHUNKED + body + http.head("GET", "/hidden"))
        assert http.statuses(http.rest(raw)) == [400]
    assert "/hidden" not in edge.application.asked
    assert edge.application.bodies == []


ENDLESS = {
    "trailers": (b"0\r\n", b"x-%d: " + b"y" * 4000 + b"\r\n"),
    "extensions": (b"", b"1;%d" + b"y" * 4000 + b"\r\nx\r\n"),
    "one extension": (b"1;%d", b"y" * 4000),
    "bytes": (b"", b"1\r\nx\r\n" * 1000),
}


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("path", ["/echo", "/deaf", "/wait"])
def test_framing_without_end_is_refused(edge, kind, path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_DRAIN_BYTES", 2**20)
    first, more = ENDLESS[kind]
    sent = 0
    with edge.connect() as raw, contextlib.suppress(OSError):
        raw.sendall(http.head("POST", path, headers=["Transfer-Encoding: chunked"]) + first)
        while sent < 2**26:
            raw.sendall(more)
            sent += len(more)
    # What is on its way does not count: the kernel holds some megabytes.
    assert sent < 2**24


@pytest.mark.parametrize(
    "head",
    [
        b"GET /echo HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n",
        b"GET /echo HTTP/1.1\r\nHost: x\r\na: " + b"b" * limits.MAX_HEADER_BYTES + b"\r\n\r\n",
        b"GET /echo?" + b"b" * limits.MAX_HEADER_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_head_over_the_limit_is_refused_also_in_one_piece(edge, head):
    with edge.connect() as raw:
        raw.sendall(head)
        assert http.statuses(http.rest(raw)) == [431]
    assert edge.application.asked == []


def test_who_is_refused_gets_to_see_it_while_he_still_sends(edge):
    with edge.connect() as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(20):
            raw.sendall(b"x" * 2**18)
        assert http.statuses(http.rest(raw)) == [400]


def test_an_early_answer_is_seen_also_when_the_body_breaks_behind_it(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("POST", "/deaf", headers=["Transfer-Encoding: chunked"]))
        time.sleep(0.1)
        raw.sendall(b"nonsense\r\n" + ECHO)
        assert http.statuses(http.rest(raw)) == [200]
    assert edge.application.asked == ["/deaf"]


def test_an_early_answer_leaves_the_connection_usable(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("POST", "/deaf", body=b"x" * 2**21) + ECHO)
        assert http.answers(raw, 2) == [200, 200]


# Versions, methods, expectations


@pytest.mark.parametrize("headers", [[], ["Connection: keep-alive"]])
def test_http_1_0_gets_a_stream_without_chunks_that_ends_with_the_connection(edge, headers):
    edge.application.release.set()
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/stream", version="1.0", headers=headers))
        top, _, body = http.rest(raw).partition(b"\r\n\r\n")
    assert body == b"one fine"
    assert b"transfer-encoding" not in top.lower()
    assert b"connection: close" in top


def test_head_is_answered_without_a_body(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("HEAD", "/length") + ECHO)
        data = http.until(raw, b"fine")
    top, _, behind = data.partition(b"\r\n\r\n")
    assert b"content-length: 4" in top
    assert http.statuses(behind) == [200]
    assert behind.startswith(b"HTTP/1.1 200")


def test_who_expects_100_is_told_to_go_on_when_the_body_is_wanted(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("POST", "/echo", headers=["Expect: 100-continue", "Content-Length: 2"]))
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"hi" + ECHO)
        assert http.answers(raw, 2) == [200, 200]


def test_who_expects_100_and_is_answered_instead_sends_nothing_more(edge):
    with edge.connect() as raw:
        raw.sendall(
            http.head("POST", "/deaf", headers=["Expect: 100-continue", f"Content-Length: {len(ECHO)}"])
        )
        data = http.until(raw, b"fine")
        raw.sendall(ECHO)
        data += http.rest(raw)
    assert http.statuses(data) == [200]
    assert b"connection: close" in data
    assert edge.application.asked == ["/deaf"]


def test_http_1_0_is_never_told_to_go_on(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("POST", "/echo", version="1.0", headers=["Expect: 100-continue"], body=b"hi"))
        assert http.statuses(http.rest(raw)) == [200]


# Faults of ours


@pytest.mark.parametrize("path", ["/fail", "/panic"])
def test_an_application_that_raises_costs_one_answer_and_tells_no_words(edge, path, caplog):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", path) + ECHO)
        assert http.answers(raw, 2) == [500, 200]
    assert "Error at" in caplog.text
    assert "words" not in caplog.text


def test_an_answer_of_which_nothing_was_sent_is_a_fault(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/begun") + ECHO)
        assert http.answers(raw, 2) == [500, 200]


def test_an_answer_that_stops_in_the_middle_is_seen_to(edge):
    with edge.connect() as raw:
        raw.sendall(http.head("GET", "/half"))
        data = http.rest(raw)
    assert http.statuses(data) == [200]
    assert not data.endswith(b"0\r\n\r\n")


def test_the_end_of_the_service_lets_answers_end_and_closes_the_rest(edge, until):
    idle, busy = edge.connect(), edge.connect()
    busy.sendall(http.head("GET", "/stream"))
    data = http.until(busy, b"one ")
    edge.server.should_exit = True
    assert http.rest(idle) == b""
    edge.application.release.set()
    data += http.rest(busy)
    assert data.endswith(b"0\r\n\r\n")
    idle.close()
    busy.close()
