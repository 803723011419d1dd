"""HTTP by hand, for what no client library would send."""

import re
import socket
import struct
import time

LENGTH = b"content-length: "


def connect(port, host="127.0.0.1", seconds=10):
    return socket.create_connection((host, port), timeout=seconds)


def head(method="GET", path="/", *, version="1.1", headers=(), body=None):
    """A request's head, and its body where there is one."""
    lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


def rest(raw):
    """Everything until the other side closes."""
    parts = []
    while True:
        try:
            part = raw.recv(2**16)
        except ConnectionResetError:
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts)


def statuses(data):
    """The statuses of all answers in `data`, in order."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


def answer(raw):
    """One answer that has a length: status, head, body. Nothing may follow it yet."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(raw, data)
    top, _, body = data.partition(b"\r\n\r\n")
    length = int(top.lower().partition(LENGTH)[2].split(b"\r\n")[0])
    while len(body) < length:
        body += _some(raw, data + body)
    assert len(body) == length
    return int(top.split()[1]), top, body


def answers(raw, count):
    """The statuses of the next `count` answers, of which the last has read its body when that is `fine`."""
    data = b""
    while len(statuses(data)) < count or not data.endswith(b"fine"):
        data += _some(raw, data)
    return statuses(data)


def until(raw, words):
    """What comes up to and with `words`, and perhaps some more."""
    data = b""
    while words not in data:
        data += _some(raw, data)
    return data


def _some(raw, before):
    part = raw.recv(2**16)
    assert part, f"the connection ended after {before[-300:]!r}"
    return part


def reset(raw):
    """Leave without a word: the other side gets RST."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def closed_after(raw, trickle=b"", seconds=4.0):
    """Send a bit of `trickle` now and then; how long until the other side closes, or None."""
    begun = time.monotonic()
    raw.settimeout(0.1)
    while time.monotonic() - begun < seconds:
        try:
            if trickle:
                raw.sendall(trickle)
            if not raw.recv(1000):
                return time.monotonic() - begun
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - begun
    return None
