"""Reading a streamed answer with as little work as can be: when it began and ended, how many tokens it had.

Knows HTTP/1.1 chunked bodies and server-sent events only as far as a service of this API writes them.
"""

from __future__ import annotations

import msgspec

from trimtab.spec.errors import EngineError

EVENT = b"data: "
_END = b"0\r\n\r\n"
_BLANK = b"\r\n\r\n"
# Holds the last events of an answer, where the usage stands.
_TAIL_BYTES = 2048


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Fault(msgspec.Struct):
    message: str


class _Body(msgspec.Struct):
    usage: _Usage | None = None
    error: _Fault | None = None


_DECODER = msgspec.json.Decoder(_Body)


def _decode(text: bytes) -> _Body:
    try:
        return _DECODER.decode(text)
    except msgspec.MsgspecError:
        return _Body()


class Answer:
    """One answer as it arrives. `first` is when the first event came, None before; `events` counts them."""

    __slots__ = ("_head", "_tail", "events", "first")

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self.events = 0
        self.first: float | None = None

    def take(self, data: bytes, now: float) -> bool:
        """Bytes that came at `now`; True when the answer is complete. Raises `EngineError` on a refusal."""
        if self.first is None:
            return self._open(data, now)
        self.events += data.count(EVENT)
        # The terminating chunk cannot be mistaken: every other chunk of events ends in a newline.
        self._tail = tail = (self._tail + data)[-_TAIL_BYTES:]
        return tail.endswith(_END)

    def _open(self, data: bytes, now: float) -> bool:
        self._head += data
        head, blank, body = self._head.partition(_BLANK)
        if not blank:
            return False
        fields = head.lower()
        if b" 200 " not in head[:16]:
            return self._refused(head, fields, body)
        if b"transfer-encoding: chunked" not in fields:
            raise EngineError(
                "the service answered, but not with a stream.", remedy="Does it support stream=true?"
            )
        if EVENT in body:
            self.first = now
            self.events = body.count(EVENT)
            self._tail = body[-_TAIL_BYTES:]
        return body.endswith(_END)

    def _refused(self, head: bytes, fields: bytes, body: bytes) -> bool:
        """Waits for the whole error body, then raises with its message."""
        _, found, length = fields.partition(b"content-length:")
        size = length.split(b"\r\n", 1)[0].strip() if found else b"0"
        if size.isdigit() and len(body) < int(size):
            return False
        status = head.split(b"\r\n", 1)[0].decode("latin-1")
        fault = _decode(body).error
        raise EngineError(fault.message if fault else "the service refused a request.", where=status)

    def tokens(self) -> int:
        """Output tokens by the last event's usage. Raises `EngineError` if the stream failed or has none."""
        start = self._tail.rfind(EVENT + b"{")
        line = self._tail[start + len(EVENT) :].split(b"\n", 1)[0] if start >= 0 else b""
        body = _decode(line)
        if body.error is not None:
            raise EngineError(body.error.message, where="stream")
        if body.usage is None:
            raise EngineError(
                "a stream ended without its usage.",
                remedy="The service must honour stream_options.include_usage.",
            )
        return body.usage.completion_tokens
