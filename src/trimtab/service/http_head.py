"""The head of a request: what makes its bytes valid, and what they say. Pure; strict where parsers differ.

h11 knows the grammar. What it lets pass and others read in another way (folded lines, bare line feeds, both ways to
say a length) is refused here, so that no two parsers see two different requests.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import h11

from trimtab.service import limits
from trimtab.spec.errors import TrimtabError, UsageError

END = b"\r\n\r\n"
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
# Headers that have one value. Two that differ would mean one thing to a proxy and another to us.
_SINGLE = frozenset(
    (b"authorization", b"x-api-key", b"content-type", b"x-request-timeout", b"origin", b"expect")
)


class HeadersTooLargeError(UsageError):
    status, code = 431, "headers_too_large"


class VersionError(UsageError):
    status, code = 505, "http_version_not_supported"


class TransferCodingError(UsageError):
    status, code = 501, "transfer_coding_not_supported"


def malformed(why: str) -> UsageError:
    return UsageError(f"This is not a valid HTTP/1.1 request: {why}.")


def protocol_fault(error: h11.RemoteProtocolError) -> TrimtabError:
    """What h11 says, without the bytes that it quotes: they may hold a key."""
    said = str(error)
    why = said.partition(": ")[0] if "b'" in said or 'b"' in said else said
    if error.error_status_hint == 501:
        return TransferCodingError(f"{why}.")
    return malformed(why[:1].lower() + why[1:])


def check_beginning(data: bytearray) -> None:
    """Refuse what will never be a head, before its end has come."""
    if len(data) > limits.MAX_HEADER_BYTES:
        raise _too_large()
    if data[0] <= 0x20 or data.count(b"\n") != data.count(b"\r\n"):
        raise malformed("a line does not end with CR LF, or begins with what no method has")


def read_head(parser: h11.Connection, head: bytes) -> tuple[h11.Request, dict[str, Any]]:
    """The request, and its ASGI scope. `head` ends with the empty line; `parser` is fresh and stands at the body then.

    Raises the errors of this module and `UsageError`.
    """
    _check_bytes(head)
    parser.receive_data(head)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise protocol_fault(error) from error
    if not isinstance(request, h11.Request):
        raise malformed("it has no head")
    headers = list(request.headers)
    _check_headers(request, headers)
    path, _, query = _origin_form(request).partition(b"?")
    text = path.decode("ascii")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "root_path": "",
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "headers": headers,
    }
    return request, scope


def wants_more(request: h11.Request) -> bool:
    """Whether the client may send another request on this connection."""
    if request.http_version == b"1.0":
        return False
    options = b",".join(value for name, value in request.headers if name == b"connection")
    return b"close" not in {option.strip().lower() for option in options.split(b",")}


def announced_length(request: h11.Request) -> int:
    """Bytes that the body may have."""
    for name, value in request.headers:
        if name == b"content-length":
            return int(value)
        if name == b"transfer-encoding":
            return limits.MAX_BODY_BYTES
    return 0


def _too_large() -> HeadersTooLargeError:
    return HeadersTooLargeError(f"The headers are over {limits.MAX_HEADER_BYTES} bytes.")


def _check_bytes(head: bytes) -> None:
    if len(head) > limits.MAX_HEADER_BYTES:
        raise _too_large()
    ends = head.count(b"\r\n")
    if head.count(b"\n") != ends or head.count(b"\r") != ends:
        raise malformed("a line does not end with CR LF")
    if b"\r\n " in head or b"\r\n\t" in head:
        raise malformed("a header goes on in the next line")
    if _CONTROLS.search(head):
        raise malformed("it holds control characters")
    version = head[: head.index(b"\r\n")].rpartition(b" ")[2]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") and version.startswith(b"HTTP/"):
        raise VersionError("Only HTTP/1.1 and HTTP/1.0 are served.")


def _check_headers(request: h11.Request, headers: list[tuple[bytes, bytes]]) -> None:
    if len(headers) > limits.MAX_HEADERS:
        raise HeadersTooLargeError(f"There are more than {limits.MAX_HEADERS} headers.")
    single: dict[bytes, bytes] = {}
    lengths = set()
    for name, value in headers:
        if name in _SINGLE and single.setdefault(name, value) != value:
            raise UsageError(
                f"The request has two different {name.decode()} headers.", remedy="Send the header once."
            )
        if name == b"host" and not _HOST.fullmatch(value):
            raise malformed("the Host header is not a host")
        if name in (b"transfer-encoding", b"content-length"):
            lengths.add(name)
    if len(lengths) > 1:
        raise malformed("it has both Content-Length and Transfer-Encoding")
    if b"transfer-encoding" in lengths and request.http_version == b"1.0":
        raise malformed("HTTP/1.0 has no Transfer-Encoding")


def _origin_form(request: h11.Request) -> bytes:
    """The target as path and query. A client that takes us for a proxy sends the whole URL."""
    target = request.target
    if not target.startswith(b"/"):
        found = _ABSOLUTE.match(target)
        if found is None or request.method == b"CONNECT":
            raise malformed("its target is not a path")
        target = target[found.end() :]
        if not target.startswith(b"/"):
            target = b"/" + target
    if b"#" in target:
        raise malformed("its target has a fragment")
    return target
