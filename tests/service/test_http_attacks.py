"""Attacks on the edge of a running gateway: what one client does, another must not feel."""

import contextlib
import gzip
import json
import threading
import time

import pytest
import raw_http as http

from trimtab.service import limits

LONG = 400


@pytest.fixture(scope="module")
def attacked(start_fake):
    return start_fake(step_seconds=0.001)


def order(running, *, headers=(), path="/v1/completions", version="1.1", key=True, **body):
    known = [f"Authorization: Bearer {running.key}"] if key else []
    body = json.dumps({"model": "fake", "prompt": "hi", "max_tokens": 2, **body}).encode()
    known += ["Content-Type: application/json", *headers]
    return http.head("POST", path, version=version, headers=known, body=body)


def connect(running):
    return http.connect(running.port, running.host)


def status(running, request):
    with connect(running) as raw:
        raw.sendall(request)
        return http.statuses(http.until(raw, b"}"))[0]


@contextlib.contextmanager
def bystander(running):
    """A stream that is read by somebody else meanwhile; it must come whole, and never wait for a second."""
    waits, texts = [], []

    def read():
        last = time.monotonic()
        for event in running.client().completions.create(
            model="fake", prompt="hi", max_tokens=LONG, stream=True
        ):
            now = time.monotonic()
            waits.append(now - last)
            last = now
            texts.append(event.choices[0].text)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert len("".join(texts).encode()) == LONG
    assert max(waits) < 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behind", ["nothing", "a request", "half a request", "a megabyte"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_who_leaves_takes_nobodys_answer_and_is_stopped(attacked, until, stream, behind, end):
    workers, before = attacked.workers(), len(attacked.asked("cancel"))
    sent = {
        "nothing": b"",
        "a request": order(attacked, stream=True),
        "half a request": order(attacked)[:-10],
        "a megabyte": b"x" * 2**20,
    }[behind]
    with bystander(attacked):
        for _ in range(3):
            raw = connect(attacked)
            raw.sendall(order(attacked, stream=stream, max_tokens=4000) + sent)
            time.sleep(0.1)
            raw.close() if end == "close" else http.reset(raw)
    assert until(lambda: len(attacked.asked("cancel")) == before + 3, 2)
    assert attacked.workers() == workers


def test_one_request_of_a_connection_is_in_work_at_a_time(attacked):
    before = len(attacked.asked("generate"))
    with connect(attacked) as raw:
        raw.sendall(order(attacked, stream=True, max_tokens=500) + order(attacked) * 3)
        http.until(raw, b"data: ")
        time.sleep(0.1)
        assert len(attacked.asked("generate")) == before + 1
        http.reset(raw)


def test_a_key_in_a_trailer_is_no_key(attacked):
    head = http.head(
        "POST", "/v1/completions", headers=["Content-Type: application/json", "Transfer-Encoding: chunked"]
    )
    trailer = f"Authorization: Bearer {attacked.key}\r\nx-api-key: {attacked.key}\r\n".encode()
    body = json.dumps({"model": "fake", "prompt": "hi"}).encode()
    data = head + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailer + b"\r\n"
    assert status(attacked, data) == 401


def test_bodies_trailers_and_extensions_without_a_key_take_no_memory(attacked):
    before = attacked.gateway.memory_info().rss
    chunked = ["Content-Type: application/json", "Transfer-Encoding: chunked"]
    head = http.head("POST", "/v1/completions", headers=chunked)
    for first, more in (
        (b"0\r\n", b"x-a: " + b"y" * 8000 + b"\r\n"),
        (b"1;a=", b"y" * 8000),
        (b"", b"2000\r\n" + b"x" * 0x2000 + b"\r\n"),
    ):
        for _ in range(3):
            with connect(attacked) as raw, contextlib.suppress(OSError):
                raw.sendall(head + first)
                for _ in range(4000):
                    raw.sendall(more)
    assert attacked.gateway.memory_info().rss - before < 16 * 2**20


def test_more_connections_than_there_are_places_shut_nobody_out(attacked):
    """All that hold a place without a request in work: silent, empty lines, half a head, half a body, used once."""
    kinds = (b"", b"\r\n", b"POST /v1/comp", order(attacked)[:-5], order(attacked, key=False)[:-5])
    holders = []
    with contextlib.ExitStack() as stack, bystander(attacked):
        for number in range(limits.MAX_CONNECTIONS + 200):
            raw = stack.enter_context(connect(attacked))
            with contextlib.suppress(OSError):
                raw.sendall(kinds[number % len(kinds)])
            holders.append(raw)
        for _ in range(5):
            begun = time.monotonic()
            assert status(attacked, order(attacked)) == 200
            assert time.monotonic() - begun < 1
    assert len(holders) > limits.MAX_CONNECTIONS


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["Authorization: Bearer other"], 400),
        (["x-api-key: other"], 400),
        (["Authorization: Basic other"], 400),
        (["Host: other"], 400),
        (["Transfer-Encoding: chunked"], 400),
        (["Content-Encoding: gzip"], 415),
        (["Content-Encoding: br"], 415),
        (["Content-Encoding: zstd, gzip"], 415),
        (["Content-Encoding: identity", "Content-Encoding: deflate"], 415),
        (["Content-Encoding: identity"], 200),
        (["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"], 200),
    ],
)
def test_headers_that_say_two_things_are_refused(attacked, headers, expected):
    assert status(attacked, order(attacked, headers=headers)) == expected


@pytest.mark.parametrize("kind", ["text/plain", "application/json; charset=utf-16", "multipart/form-data"])
def test_what_is_no_json_in_utf_8_is_an_unsupported_media_type(attacked, kind):
    request = order(attacked).replace(b"Content-Type: application/json", b"Content-Type: " + kind.encode())
    assert status(attacked, request) == 415


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"'])
def test_json_in_utf_8_may_say_so(attacked, kind):
    request = order(attacked).replace(b"Content-Type: application/json", b"Content-Type: " + kind.encode())
    assert status(attacked, request) == 200


def test_a_compressed_body_is_told_to_come_uncompressed(attacked):
    body = gzip.compress(b'{"model": "fake", "prompt": "hi"}')
    headers = [f"x-api-key: {attacked.key}", "Content-Type: application/json", "Content-Encoding: gzip"]
    with connect(attacked) as raw:
        raw.sendall(http.head("POST", "/v1/completions", headers=headers, body=body))
        code, _, answer = http.answer(raw)
    assert code == 415
    assert b"'gzip'" in answer
    assert b"uncompressed" in answer


def test_a_request_in_an_upgrade_is_not_run(attacked):
    before = len(attacked.asked("generate"))
    headers = ["Connection: Upgrade", "Upgrade: websocket", "Content-Type: application/json"]
    headers.append(f"Authorization: Bearer {attacked.key}")
    hidden = order(attacked, prompt="hidden")
    whole = http.head("POST", "/v1/completions", headers=headers, body=hidden)
    with connect(attacked) as raw:
        raw.sendall(whole.removesuffix(hidden))
        time.sleep(0.1)
        raw.sendall(hidden)
        assert http.answer(raw)[0] == 400
    assert len(attacked.asked("generate")) == before


def test_http_1_0_gets_a_plain_stream(attacked):
    with connect(attacked) as raw:
        raw.sendall(order(attacked, version="1.0", stream=True, max_tokens=5))
        top, _, body = http.rest(raw).partition(b"\r\n\r\n")
    assert b"chunked" not in top.lower()
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")
    events = [json.loads(line[6:]) for line in body.decode().split("\n\n")[:-2]]
    assert "".join(event["choices"][0]["text"] for event in events) == "héll"


def test_http_1_0_gets_a_whole_answer(attacked):
    with connect(attacked) as raw:
        raw.sendall(order(attacked, version="1.0"))
        top, _, body = http.rest(raw).partition(b"\r\n\r\n")
    assert json.loads(body)["object"] == "text_completion"
    assert b"connection: close" in top


def test_a_head_in_a_running_stream_does_not_land_in_it(attacked):
    with connect(attacked) as raw:
        raw.sendall(order(attacked, stream=True, max_tokens=300))
        data = http.until(raw, b"data: ")
        raw.sendall(b"GET /v1/models HTTP/9.9\r\n\r\n")
        data += http.rest(raw)
    stream, _, behind = data.partition(b"0\r\n\r\n")
    assert stream.endswith(b"data: [DONE]\n\n\r\n")
    assert http.statuses(behind) == [505]
