"""Process "load": one job a line on stdin, one reply a line on stdout. Ends when its parent does."""

from __future__ import annotations

import os
import sys

import msgspec

from trimtab.bench.client import drive
from trimtab.bench.job import Failure, Job, Reply
from trimtab.spec import lifeline
from trimtab.spec.errors import EngineError

_DECODER = msgspec.json.Decoder(Job)


def _reply(line: bytes) -> Reply:
    job = _DECODER.decode(line)
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    try:
        return Reply(outcome=drive(job))
    except EngineError as error:
        return Reply(failure=Failure(message=str(error)))


def main() -> None:
    lifeline.die_with_parent()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(_reply(line)) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        # Ctrl-C reaches the whole group; the parent tells the person.
        sys.exit(130)
