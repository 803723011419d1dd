"""The wire between the service and an engine's worker: messages and frames. No socket is opened here.

A frame is `uint32 length of the rest | uint32 length of the header | header | parts`, little-endian. The header
is msgpack: one tagged message, which says how long each binary part is. Token ids travel as int32 and
probabilities as float32, both little-endian and uncopied. Lengths are bounded before anything is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

PROTOCOL = 1
MAX_FRAME_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 4 * 2**20
_LENGTHS = struct.Struct("<II")

Kind = Literal["generate", "score", "embed", "classify", "infer", "explain"]
Finish = Literal["stop", "length", "cancelled", "error"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages. `parts` holds the byte length of each binary part of the frame."""

    parts: tuple[int, ...] = ()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do with the build it has loaded."""

    kinds: tuple[Kind, ...]
    context_length: int
    vocabulary_size: int
    eos_token_ids: tuple[int, ...] = ()
    max_batch: int = 1


class Hello(Message, tag="hello", kw_only=True, frozen=True):
    """The worker's first message, once its build is loaded and warm."""

    engine: str
    capabilities: Capabilities
    content_digest: str
    pid: int
    load_seconds: float
    protocol: int = PROTOCOL


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are drawn. `temperature` 0 is greedy. `ignore_eos` serves fixed-length measurements."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: bool = False
    ignore_eos: bool = False


class Submit(Message, tag="submit", kw_only=True, frozen=True):
    """One request. Part 0: the prompt's token ids (int32).

    `generate` needs `sampling`; `score` returns the log-probability of every prompt token and, with `top` > 0,
    the most probable alternatives. `deadline` is seconds from now after which the work is worthless.
    """

    id: int
    kind: Kind
    sampling: Sampling | None = None
    top: int = 0
    deadline: float | None = None
    priority: int = 0
    tenant: str = ""
    trace: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """News of one request: new token ids, their log-probabilities if asked for, and how it ended, if it did."""

    id: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish: Finish | None = None
    error: str | None = None


class Chunk(Message, tag="chunk", kw_only=True, frozen=True):
    """All news of one engine step in one frame."""

    events: tuple[Event, ...]


class Scored(Message, tag="scored", kw_only=True, frozen=True):
    """Answer to `score`. Part 0: float32 log-probability of token i given those before it (index 0 is NaN).

    With `top` = k > 0, part 1: int32 ids and part 2: float32 log-probabilities, both (tokens, k) row-major; row i
    holds the alternatives for token i. Rows 0 are undefined.
    """

    id: int
    top: int = 0


class Cancel(Message, tag="cancel", kw_only=True, frozen=True):
    id: int


class Drain(Message, tag="drain", kw_only=True, frozen=True):
    """Finish what runs, take nothing new, then exit 0."""


class Step(Message, tag="step", kw_only=True, frozen=True):
    """Heartbeat, at least every 500 ms: a worker is dead when `counter` and its process's CPU time both stand still."""

    counter: int
    running: int
    waiting: int
    cache_used: float = 0.0
    generated_tokens: int = 0


class Fault(Message, tag="error", kw_only=True, frozen=True):
    """A request (`id`) or the worker (`id` None) failed. `code` is a closed word, `message` a sentence."""

    message: str
    code: Literal["invalid", "overloaded", "failed", "deadline"] = "failed"
    id: int | None = None


AnyMessage = Hello | Submit | Chunk | Scored | Cancel | Drain | Step | Fault
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyMessage)


class WireError(ValueError):
    """Bytes that are not a frame of ours; the connection must be closed."""


def encode(message: AnyMessage, *parts: bytes | memoryview) -> bytes:
    """One frame. `message.parts` is filled in here."""
    if parts:
        # Not len(): of a view of int32 that would be its items.
        message = msgspec.structs.replace(message, parts=tuple(memoryview(part).nbytes for part in parts))
    header = _ENCODER.encode(message)
    rest = 4 + len(header) + sum(message.parts)
    if rest > MAX_FRAME_BYTES or len(header) > MAX_HEADER_BYTES:
        raise WireError(f"a frame of {rest} bytes is over the limit of {MAX_FRAME_BYTES}")
    return b"".join((_LENGTHS.pack(rest, len(header)), header, *parts))


class FrameReader:
    """Turns a byte stream into frames. Feed it what the socket gives; iterate what is complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[AnyMessage, list[bytes]]]:
        """Yields `(message, parts)`. Raises `WireError` on anything malformed or too large."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTHS.size:
                rest, header_length = _LENGTHS.unpack_from(self._buffer, start)
                if rest > MAX_FRAME_BYTES or header_length > min(MAX_HEADER_BYTES, rest - 4):
                    raise WireError("a frame announces more bytes than it may have")
                if len(self._buffer) - start - 4 < rest:
                    break
                yield self._decode(start + _LENGTHS.size, header_length, start + 4 + rest)
                start += 4 + rest
        finally:
            del self._buffer[:start]

    def _decode(self, start: int, header_length: int, end: int) -> tuple[AnyMessage, list[bytes]]:
        try:
            message = _DECODER.decode(self._buffer[start : start + header_length])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(f"not a message: {error}") from error
        start += header_length
        if start + sum(message.parts) != end or any(length < 0 for length in message.parts):
            raise WireError("the parts of a frame do not add up to its length")
        parts = []
        for length in message.parts:
            parts.append(bytes(self._buffer[start : start + length]))
            start += length
        return message, parts
