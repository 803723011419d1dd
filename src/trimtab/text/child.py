"""What the processes share that run what came with a model: frames over pipes, and limits on themselves.

A frame is a length (uint32, little-endian) and JSON.
"""

from __future__ import annotations

import resource
import signal
import struct
from typing import BinaryIO

import msgspec

LENGTH = struct.Struct("<I")


def frame(record: msgspec.Struct) -> bytes:
    body = msgspec.json.encode(record)
    return LENGTH.pack(len(body)) + body


def receive(stream: BinaryIO) -> bytes | None:
    """The next frame's JSON; None at the end."""
    header = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(header)[0]) if len(header) == LENGTH.size else None


def limit_itself(*, memory_bytes: int, open_files: int | None = None) -> None:
    """For this process, for good: memory, no file written, no core dump; and timers that end it by default."""
    limits = [
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ]
    if open_files is not None:
        limits.append((resource.RLIMIT_NOFILE, open_files))
    for limit, value in limits:
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    # What our starter ignores or blocks, we would too.
    timers = (signal.SIGALRM, signal.SIGPROF)
    for number in timers:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, timers)
