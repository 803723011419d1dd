"""Texts to ids in a process that can be killed: for tokenizers that may take more than their texts deserve.

One process a model, started when the tokenizer is loaded, and again after it was killed. Time and memory are
bounded from both sides: here a clock, there an alarm of the kernel's, which also ends a process whose service is
gone, whatever it computes.
"""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from pathlib import Path

import msgspec

from trimtab.spec import processes
from trimtab.spec.errors import EngineError, ModelError, UsageError
from trimtab.text.child import LENGTH, frame

LOAD_SECONDS = 60
ENCODE_SECONDS = 10
_STARTS_IN = 10  # on a busy machine, beside what loading takes
_MAX_REPLY_BYTES = 64 * 2**20
_PIPE_BYTES = 2**16
# Each thread of the library's pool would take its share of the memory.
_ALONE = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told first."""

    folder: str
    load_seconds: int
    encode_seconds: int


class Encode(msgspec.Struct, frozen=True, kw_only=True):
    """`plain`: no text becomes a special token, whatever it spells."""

    texts: list[str]
    add_special_tokens: bool
    plain: bool


class Encoded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`ids` of every text, or in `error` why there are none."""

    ids: list[list[int]] = []
    error: str | None = None


class GuardedEncoder:
    """Safe to use from several threads; encodes one request at a time."""

    def __init__(
        self, folder: Path, *, load_seconds: int = LOAD_SECONDS, encode_seconds: int = ENCODE_SECONDS
    ) -> None:
        """Starts the process. Raises `ModelError` for a tokenizer that it cannot load within the bounds."""
        self._load = Load(folder=str(folder), load_seconds=load_seconds, encode_seconds=encode_seconds)
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._start()

    def encode(self, texts: list[str], *, add_special_tokens: bool, plain: bool = False) -> list[list[int]]:
        """Raises `UsageError` for texts that take too much."""
        asked = Encode(texts=texts, add_special_tokens=add_special_tokens, plain=plain)
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            reply = self._ask(asked, self._load.encode_seconds)
        if reply.error is not None:
            raise UsageError(
                f"The model's tokenizer cannot encode the text: {reply.error}.",
                where="prompt",
                remedy="Send a shorter or plainer text, or token ids.",
            )
        return reply.ids

    def close(self) -> None:
        """Ends the process, also in the middle of its work."""
        self._closed = True
        if (child := self._child) is not None:
            child.kill()
        with self._lock:
            self._end()

    def _start(self) -> None:
        self._end()
        if self._closed:
            raise EngineError("The model is being closed.")
        child = processes.start(
            "encoder", environment=_ALONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._child = child
        for pipe in (child.stdin, child.stdout):
            os.set_blocking(pipe.fileno(), False)  # pyrefly: ignore[missing-attribute]
        reply = self._ask(self._load, self._load.load_seconds + _STARTS_IN)
        if reply.error is not None:
            self._end()
            raise ModelError(f"The tokenizer cannot be loaded: {reply.error}.", where=self._load.folder)

    def _ask(self, asked: Load | Encode, seconds: float) -> Encoded:
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            return Encoded(error="its process is gone")
        until = time.monotonic() + seconds
        try:
            _write(child.stdin.fileno(), frame(asked), until)
            source = child.stdout.fileno()
            (length,) = LENGTH.unpack(_read(source, LENGTH.size, until))
            if length > _MAX_REPLY_BYTES:
                raise EOFError
            return msgspec.json.decode(_read(source, length, until), type=Encoded)
        except (TimeoutError, OSError, EOFError):
            self._end()
            return Encoded(error="it took too long or too much memory")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
            child.wait()


def _wait(descriptor: int, event: int, until: float) -> None:
    """`select` knows no descriptors above 1,023, which a gateway has."""
    poller = select.poll()
    poller.register(descriptor, event)
    left = until - time.monotonic()
    if left <= 0 or not poller.poll(left * 1000):
        raise TimeoutError


def _write(descriptor: int, data: bytes, until: float) -> None:
    """To a process that may be stopped: never longer than `until`."""
    rest = memoryview(data)
    while rest:
        _wait(descriptor, select.POLLOUT, until)
        rest = rest[os.write(descriptor, rest[:_PIPE_BYTES]) :]


def _read(descriptor: int, count: int, until: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        _wait(descriptor, select.POLLIN, until)
        part = os.read(descriptor, min(count - len(data), _PIPE_BYTES))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
