"""The deadlines that uvicorn lacks, on real sockets: slow headers, slow bodies, readers that do not read."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import raw_http
import uvicorn

from trimtab.service import limits
from trimtab.service.protocol import BoundedProtocol


async def application(scope, receive, send):
    """Reads the whole body; /big answers more than any buffer holds, /deaf answers without reading."""
    more = scope["path"] != "/deaf"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/big":
        for _ in range(400):
            await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
    await send({"type": "http.response.body", "body": b"fine"})


@pytest.fixture
def port(monkeypatch):
    for name in ("HEADERS_SECONDS", "BODY_SECONDS", "STALLED_READER_SECONDS"):
        monkeypatch.setattr(limits, name, 0.5)
    monkeypatch.setattr(limits, "MAX_DRAIN_BYTES", 2**20)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            application, http=BoundedProtocol, ws="none", lifespan="off", log_config=None, access_log=False
        )
    )
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = server.force_exit = True
    thread.join()
    listener.close()


def cut_after(port, first, trickle=b"", seconds=3.0):
    """Send `first`, then a byte of `trickle` now and then; how long until the server closes."""
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(first)
        return raw_http.closed_after(raw, trickle, seconds)


@pytest.mark.parametrize(
    ("first", "trickle"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"a"),
    ],
)
def test_who_is_slow_is_cut(port, first, trickle):
    took = cut_after(port, first, trickle)
    assert took is not None
    assert 0.4 < took < 2.0


def test_the_second_request_on_a_connection_has_its_deadline_too(port):
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    took = cut_after(port, whole + b"GET / HT", b"")
    assert took is not None
    assert took < 2.0


def test_who_does_not_read_is_cut(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1.5)
        raw.settimeout(5)
        got = 0
        # What the kernel held still comes; what the server held does not.
        with contextlib.suppress(ConnectionResetError):
            while part := raw.recv(2**20):
                got += len(part)
        assert got < 300 * 2**16


def test_an_endless_body_that_nobody_reads_is_cut(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(b"POST /deaf HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 2**16 + b"\r\n"
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 2**26:
                raw.sendall(chunk)
                sent += len(chunk)
        assert sent < 2**25


def test_who_is_quick_is_served(port):
    with socket.create_connection(("127.0.0.1", port)) as raw:
        for _ in range(3):
            raw.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
            answer = b""
            while b"fine" not in answer:
                answer += raw.recv(1000)
            time.sleep(0.2)
