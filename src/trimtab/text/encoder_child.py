"""Process "encoder": one model's tokenizer, over stdin and stdout, until stdin ends.

It runs regular expressions and tables that came with a model, so it limits itself first: memory, no file written,
no core dump. The alarm is set before each piece of work; it ends the process even where the library does not let
Python run, and where nobody waits for the answer any more.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from trimtab.spec import lifeline
from trimtab.spec.errors import TrimtabError
from trimtab.text.child import frame, limit_itself, receive
from trimtab.text.guarded import Encode, Encoded, Load
from trimtab.text.tokenizer import Tokenizer

MEMORY_BYTES = 2 * 2**30


def _send(sink: BinaryIO, reply: Encoded) -> None:
    sink.write(frame(reply))
    sink.flush()


def _encode(tokenizer: Tokenizer, asked: Encode) -> list[list[int]]:
    if asked.plain:
        return [tokenizer.encode_plain(text) for text in asked.texts]
    return tokenizer.encode_many(asked.texts, add_special_tokens=asked.add_special_tokens)


def main() -> None:
    lifeline.die_with_parent()
    limit_itself(memory_bytes=MEMORY_BYTES)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = receive(source)
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
    while (asked := receive(source)) is not None:
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
