"""The other end of the process "build": started when first needed, ended with the block. Torch-free."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import msgspec

from trimtab.engines.build import Answer, Job
from trimtab.spec import processes
from trimtab.spec.errors import EngineError, ModelError
from trimtab.spec.serving import WeightFormat

# What the process printed is told where it died without an answer; the end holds the cause.
_TOLD_CHARACTERS = 4000


class Builder:
    """Makes builds one after the other in one process. A context manager: nothing is left running."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in __exit__)

    def make(self, artifact: Path, weight_format: WeightFormat, output: Path) -> None:
        """Fill the folder `output`.

        Raises `ModelError` for an artifact that cannot be served, `EngineError` for all other faults.
        """
        job = Job(artifact=str(artifact.resolve()), weight_format=weight_format, output=str(output.resolve()))
        line = self._ask(msgspec.json.encode(job) + b"\n")
        if not line:
            raise EngineError(f"the build process died.\n{self._told()}", where=str(artifact))
        answer = msgspec.json.decode(line, type=Answer)
        if answer.message is not None and answer.refused:
            raise ModelError(answer.message)
        if answer.message is not None:
            raise EngineError(
                f"the build failed: {answer.message}\n{self._told()}".strip(), where=str(artifact)
            )

    def _ask(self, line: bytes) -> bytes:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = processes.start("build", stdin=pipe, stdout=pipe, stderr=self._log)
        if self._process.stdin is None or self._process.stdout is None:
            return b""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()
        return self._process.stdout.readline()

    def _told(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-_TOLD_CHARACTERS:]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            # It has answered everything it was asked, and taking torch down in good order costs seconds.
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process.wait()
        self._log.close()
