"""The worker's end of the wire: one listening socket, one connection, never blocking for long, bounded both ways.

What the gateway does not read stays in a buffer; above its limit `full` is true and the loop stops producing
until the gateway reads again, or has not for too long.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from pathlib import Path

from trimtab.spec.errors import UsageError
from trimtab.spec.wire import AnyMessage, FrameReader, encode

FULL_BYTES = 4 * 2**20
STALLED_SECONDS = 30.0
_READ_BYTES = 256 * 1024
_UNREADY = "~"
# Kernels bound the path of a Unix socket (108 bytes on Linux, 104 on macOS, with a final zero).
_MAX_PATH_BYTES = 103 - len(_UNREADY)


class ConnectionLostError(Exception):
    """The gateway is gone (`closed`), or has stopped reading for good."""

    def __init__(self, message: str, *, closed: bool = True) -> None:
        super().__init__(message)
        self.closed = closed


def listen(address: str) -> socket.socket:
    """A listening socket at `unix:/path`, for its owner only. Raises `UsageError` for an address it cannot take."""
    scheme, _, path = address.partition(":")
    if scheme != "unix" or not path.startswith("/"):
        raise UsageError(f"{address!r} is not an address.", where="address", remedy="Write unix:/PATH.sock.")
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise UsageError(
            f"the path of the socket is longer than {_MAX_PATH_BYTES} bytes: {path}",
            where="address",
            remedy="Use a folder with a shorter path.",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Bound under another name and renamed: a path that exists can be connected to.
    unready = path + _UNREADY
    before = os.umask(0o177)
    try:
        listener.bind(unready)
        listener.listen(1)
        Path(unready).rename(path)
    except OSError as error:
        listener.close()
        Path(unready).unlink(missing_ok=True)
        raise UsageError(f"cannot listen at {path}: {error.strerror}.", where="address") from error
    finally:
        os.umask(before)
    return listener


def accept(listener: socket.socket, path: Path, timeout_seconds: float) -> socket.socket | None:
    """The one connection this worker will have, or None if nobody came. The address is gone afterwards."""
    listener.settimeout(timeout_seconds)
    try:
        connected, _ = listener.accept()
    except TimeoutError:
        return None
    finally:
        listener.close()
        path.unlink(missing_ok=True)
    return connected


class Connection:
    """Frames in and out of a connected socket. Raises `ConnectionLostError` where there is nobody to talk to."""

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket, self._reader = connected, FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self._waiting_bytes = 0
        self._last_progress = time.monotonic()

    @property
    def full(self) -> bool:
        return self._waiting_bytes > FULL_BYTES

    @property
    def empty(self) -> bool:
        return self._waiting_bytes == 0

    def wait(self, seconds: float) -> None:
        """Sleep until there is something to read, room to write what waits, or `seconds` are over.

        Where the buffer is full, nothing is read, so what arrives does not wake the caller either.
        """
        reading = [] if self.full else [self._socket]
        select.select(reading, [self._socket] if self._outgoing else [], [], max(0.0, seconds))

    def receive(self) -> list[tuple[AnyMessage, list[bytes]]]:
        """Every frame that has arrived in full. Raises `WireError` for bytes that are none."""
        messages: list[tuple[AnyMessage, list[bytes]]] = []
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return messages
            except OSError as error:
                raise ConnectionLostError(str(error)) from error
            if not data:
                raise ConnectionLostError("the gateway closed the connection")
            messages += self._reader.feed(data)
            if len(data) < _READ_BYTES:
                return messages

    def send(self, message: AnyMessage, *parts: bytes | memoryview) -> None:
        """Queue a frame and write what the socket takes. Never blocks."""
        if not self._outgoing:
            self._last_progress = time.monotonic()
        frame = memoryview(encode(message, *parts))
        self._outgoing.append(frame)
        self._waiting_bytes += len(frame)
        self.flush()

    def flush(self) -> None:
        """Write what the socket takes now."""
        while self._outgoing:
            frame = self._outgoing[0]
            try:
                sent = self._socket.send(frame)
            except (BlockingIOError, InterruptedError):
                self._check_progress()
                return
            except OSError as error:
                raise ConnectionLostError(str(error)) from error
            self._last_progress = time.monotonic()
            self._waiting_bytes -= sent
            if sent == len(frame):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = frame[sent:]

    def close(self) -> None:
        self._socket.close()

    def _check_progress(self) -> None:
        stalled = time.monotonic() - self._last_progress
        if stalled > STALLED_SECONDS:
            raise ConnectionLostError(f"the gateway has read nothing for {stalled:.0f} s", closed=False)
