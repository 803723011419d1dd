"""One life of a worker: the process, its socket, its last words. Started by exec, ended for certain.

Its stderr is passed on to ours; the last line explains a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from trimtab.service import limits
from trimtab.service.connection import Connection
from trimtab.service.pulse import Pulse
from trimtab.spec import processes
from trimtab.spec.errors import EngineError
from trimtab.spec.wire import Hello

POLL_SECONDS = 0.02
LOOK_SECONDS = 1.0
LAST_WORDS_SECONDS = 1.0
_READ_BYTES = 2**16

Spawn = Callable[[Sequence[str]], "subprocess.Popen[bytes]"]


def spawn_worker(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """The worker cannot outlive this process (`spec.lifeline`); it has no other input."""
    return processes.start(
        "worker", arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


class WorkerProcess:
    """`socket` is where the worker was told to listen; `connection` is there once it listens."""

    def __init__(self, process: subprocess.Popen[bytes], socket: Path) -> None:
        self._process, self._socket = process, socket
        self._last_words: deque[str] = deque(maxlen=20)
        self._stderr = asyncio.create_task(self._pass_on())
        self.pid = process.pid
        self.connection: Connection | None = None

    async def load(self) -> tuple[Connection, Hello]:
        """Wait until the build is loaded. Raises `EngineError` with the worker's last words."""
        loop = asyncio.get_running_loop()
        pulse, look = Pulse(self.pid, loop.time(), children=True), loop.time() + LOOK_SECONDS
        while self.connection is None or not self.connection.hello.done():
            if self._process.poll() is not None or (self.connection and self.connection.lost.done()):
                await asyncio.wait({self._stderr}, timeout=LAST_WORDS_SECONDS)
                raise EngineError(self.reason())
            if self.connection is None:
                self.connection = await self._connect()
            if loop.time() > look:
                look = loop.time() + LOOK_SECONDS
                if pulse.standstill(0, loop.time()) > limits.LOAD_DEAD_SECONDS:
                    raise EngineError("it stands still while it loads")
            await asyncio.sleep(POLL_SECONDS)
        return self.connection, self.connection.hello.result()

    async def _connect(self) -> Connection | None:
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                Connection, str(self._socket)
            )
        except (FileNotFoundError, ConnectionRefusedError):
            return None  # it does not listen yet
        return connection

    def reason(self) -> str:
        """Why it failed, in its own words if it had any."""
        if self.connection is not None and self.connection.failure:
            return self.connection.failure
        if self._last_words:
            return self._last_words[-1].removeprefix("error: ")
        status = self._process.poll()
        return "it closed its connection" if status is None else f"it ended with status {status}"

    def kill(self) -> None:
        self._process.kill()

    async def exited(self, seconds: float) -> bool:
        """Whether the process ends within that time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._process.poll() is None:
            if loop.time() > until:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def end(self) -> None:
        """Kill it if it lives, and leave nothing of it."""
        self._process.kill()
        await self.exited(math.inf)
        if self.connection is not None:
            self.connection.close()
        await asyncio.wait({self._stderr}, timeout=LAST_WORDS_SECONDS)
        self._stderr.cancel()
        with contextlib.suppress(OSError):
            self._socket.unlink()

    async def _pass_on(self) -> None:
        """Read to the end whatever comes, and wherever it can be passed on to: an unread pipe stops the worker."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stderr
        )
        begun = b""
        while data := await reader.read(_READ_BYTES):
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.buffer.write(data)
                sys.stderr.buffer.flush()
            *lines, begun = (begun + data).split(b"\n")
            begun = begun[-_READ_BYTES:]
            self._note(*lines)
        self._note(begun)

    def _note(self, *lines: bytes) -> None:
        texts = (line.decode(errors="replace").strip() for line in lines)
        self._last_words.extend(text for text in texts if text)
