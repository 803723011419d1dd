"""Process "encoder": one model's tokenizer, over stdin and stdout, until stdin ends.

It runs regular expressions and tables that came with a model, so it limits itself first: memory, no file written,
no core dump. The alarm is set before each piece of work; it ends the process even where the library does not let
Python run, and where nobody waits for the answer any more.
"""

from __future__ import annotations

import resource
import signal
import struct
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from trimtab.spec import lifeline
from trimtab.spec.errors import TrimtabError
from trimtab.text.guarded import Encode, Encoded, Load, frame
from trimtab.text.tokenizer import Tokenizer

MEMORY_BYTES = 2 * 2**30
_LENGTH = struct.Struct("<I")


def _limit() -> None:
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _receive(stream: BinaryIO) -> bytes | None:
    header = stream.read(_LENGTH.size)
    return stream.read(_LENGTH.unpack(header)[0]) if len(header) == _LENGTH.size else None


def _send(sink: BinaryIO, reply: Encoded) -> None:
    sink.write(frame(reply))
    sink.flush()


def _encode(tokenizer: Tokenizer, asked: Encode) -> list[list[int]]:
    if asked.plain:
        return [tokenizer.encode_plain(text) for text in asked.texts]
    return tokenizer.encode_many(asked.texts, add_special_tokens=asked.add_special_tokens)


def main() -> None:
    lifeline.die_with_parent()
    _limit()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = _receive(source)
    if first is None:
        return
    told = msgspec.json.decode(first, type=Load)
    signal.alarm(told.load_seconds)
    try:
        tokenizer = Tokenizer.load(Path(told.folder), guard=False)
    except (TrimtabError, MemoryError) as error:
        _send(sink, Encoded(error=str(error)[:300] or "too much memory"))
        return
    signal.alarm(0)
    _send(sink, Encoded())
    while (asked := _receive(source)) is not None:
        request = msgspec.json.decode(asked, type=Encode)
        signal.alarm(told.encode_seconds)
        try:
            reply = Encoded(ids=_encode(tokenizer, request))
        except (TrimtabError, MemoryError) as error:
            reply = Encoded(error=str(error)[:300] or "too much memory")
        signal.alarm(0)
        _send(sink, reply)


if __name__ == "__main__":
    main()
