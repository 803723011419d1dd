"""The load process as its parent sees it: start it once, give it jobs, and leave nothing behind."""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import Self

import msgspec

from trimtab.bench.job import Job, Outcome, Reply
from trimtab.spec import processes
from trimtab.spec.errors import EngineError


class Generator:
    """A load process. Use as a context manager; not for several threads at once."""

    def __init__(self) -> None:
        self._process = processes.start("load", stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, job: Job) -> Outcome:
        """Raises `EngineError` with the reason where the service refuses, fails or falls silent."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise ValueError("the load process has no pipes")
        try:
            stdin.write(msgspec.json.encode(job) + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise EngineError(f"the load process ended with code {self._process.wait()}.", where="load")
        reply = msgspec.json.decode(line, type=Reply)
        if reply.outcome is None:
            raise EngineError(reply.failure.message if reply.failure else "the load process gave no reason.")
        return reply.outcome

    def close(self) -> None:
        self._process.kill()
        # Closes both pipes and reaps the process.
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
