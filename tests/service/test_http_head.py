"""Which bytes are the head of a request, and what they say: strict where parsers differ."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.service import limits
from trimtab.service.http_head import check_beginning, read_head, wants_more
from trimtab.spec.errors import TrimtabError, UsageError

GOOD = b"GET /a HTTP/1.1\r\nHost: x\r\n"


def read(head):
    return read_head(h11.Connection(h11.SERVER, limits.MAX_HEADER_BYTES), head)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET\t/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b" GET /a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a\r\nHost: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1 \r\nHost: x\r\n\r\n", 400),
        (b"GET /a http/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.10\r\nHost: x\r\n\r\n", 505),
        (b"GET /a HTTP/0.9\r\nHost: x\r\n\r\n", 505),
        (b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n", 505),
        (b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET /a HTTP/1.1\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", 400),
        (b"GET /a HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
        (b"GET /a HTTP/1.1\r\nHost: x@y\r\n\r\n", 400),
        (GOOD + b"A: b\r\n c\r\n\r\n", 400),
        (GOOD + b"A: b\r\n\tc\r\n\r\n", 400),
        (GOOD + b"A : b\r\n\r\n", 400),
        (GOOD + b": b\r\n\r\n", 400),
        (GOOD + b"no colon\r\n\r\n", 400),
        (GOOD + b"A: b\x00c\r\n\r\n", 400),
        (GOOD + b"A: b\x0bc\r\n\r\n", 400),
        (GOOD + b"A: b\x7fc\r\n\r\n", 400),
        (GOOD + b"A: b\nB: c\r\n\r\n", 400),
        (GOOD + b"A: b\rB: c\r\n\r\n", 400),
        (GOOD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (GOOD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400),
        (GOOD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (GOOD + b"Content-Length: 5, 6\r\n\r\n", 400),
        (GOOD + b"Content-Length: +5\r\n\r\n", 400),
        (GOOD + b"Content-Length: -5\r\n\r\n", 400),
        (GOOD + b"Content-Length: 0x5\r\n\r\n", 400),
        (GOOD + b"Content-Length: 1_0\r\n\r\n", 400),
        (GOOD + b"Content-Length: \r\n\r\n", 400),
        (GOOD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 400),
        (GOOD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (GOOD + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (GOOD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (GOOD + b"Transfer-Encoding: identity\r\n\r\n", 501),
        (GOOD + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400),
        (b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (GOOD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
        (GOOD + b"authorization: Bearer a\r\nAUTHORIZATION: Basic a\r\n\r\n", 400),
        (GOOD + b"x-api-key: a\r\nX-Api-Key: b\r\n\r\n", 400),
        (GOOD + b"Content-Type: application/json\r\nContent-Type: text/plain\r\n\r\n", 400),
        (GOOD + b"x-request-timeout: 1\r\nx-request-timeout: 2\r\n\r\n", 400),
        (b"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"G(T /a HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (GOOD + b"A: b\r\n" * limits.MAX_HEADERS + b"\r\n", 431),
        (GOOD + b"A: " + b"b" * limits.MAX_HEADER_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * limits.MAX_HEADER_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
    ],
)
def test_heads_that_parsers_read_in_two_ways_are_refused(head, status):
    with pytest.raises(TrimtabError) as caught:
        read(head)
    assert caught.value.status == status


@pytest.mark.parametrize("secret", [b"tt_secret", b"'tt_secret", b'"tt_secret'])
def test_a_refusal_does_not_repeat_what_came(secret):
    with pytest.raises(UsageError) as caught:
        read(GOOD + b"Authorization Bearer " + secret + b"\r\n\r\n")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("head", "path", "query"),
    [
        (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "/", b""),
        (b"GET /a?b=c?d HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "/a", b"b=c?d"),
        (b"GET /%C3%A9%2Fb HTTP/1.1\r\nHost: x:80\r\n\r\n", "/é/b", b""),
        (b"GET http://x:80/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "/a", b"b"),
        (b"GET HTTP://x HTTP/1.1\r\nHost: x\r\n\r\n", "/", b""),
        (b"GET http://x?b HTTP/1.1\r\nHost: x\r\n\r\n", "/", b"b"),
        (b"GET /a HTTP/1.0\r\n\r\n", "/a", b""),
        (GOOD + b"Authorization: Bearer a\r\nAuthorization: Bearer a\r\n\r\n", "/a", b""),
        (GOOD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "/a", b""),
        (GOOD + b"X: caf\xc3\xa9\tb\r\n\r\n", "/a", b""),
    ],
)
def test_what_is_unusual_and_plain_is_read(head, path, query):
    _, scope = read(head)
    assert (scope["path"], scope["query_string"]) == (path, query)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (GOOD + b"\r\n", True),
        (GOOD + b"Connection: keep-alive\r\n\r\n", True),
        (GOOD + b"Connection: Upgrade, CLOSE\r\n\r\n", False),
        (GOOD + b"Connection: keep-alive\r\nConnection: close\r\n\r\n", False),
        (b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_who_wants_to_send_more(head, more):
    assert wants_more(read(head)[0]) is more


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"\nGET", b" GET", b"GET / HTTP/1.1\n", b"a" * 20_000])
def test_what_will_be_no_head_is_refused_before_its_end(data):
    with pytest.raises(UsageError):
        check_beginning(bytearray(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    for head in (data + b"\r\n\r\n", GOOD + data + b"\r\n\r\n"):
        try:
            _, scope = read(head)
        except TrimtabError:
            continue
        assert scope["path"].startswith("/")
        assert all(name == name.lower() for name, _ in scope["headers"])
