"""The process "build": makes builds of artifacts, apart from everything else so that no worker imports torch.

Jobs come in as lines of JSON and each is answered by one: importing torch and the exporter costs seconds, which
many builds then share. Ends when its input does. What libraries print goes to stderr.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from trimtab.engines.quiet import quiet_libraries
from trimtab.engines.record import BuildRecord, versions, write_record
from trimtab.spec import lifeline
from trimtab.spec.artifact import content_digest
from trimtab.spec.errors import EngineError, ModelError, TrimtabError
from trimtab.spec.serving import WeightFormat


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One OpenVINO build to make in the folder `output`."""

    artifact: str
    weight_format: WeightFormat
    output: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a job ended. `refused`: the artifact cannot be served, and `message` says why; else our fault."""

    message: str | None = None
    refused: bool = False


def build(artifact: Path, weight_format: WeightFormat, output: Path) -> BuildRecord:
    """Make an OpenVINO build of `artifact` in the folder `output`, which must be empty or absent."""
    made_with = versions("openvino")
    from trimtab.engines.openvino.build import make

    output.mkdir(parents=True, exist_ok=True)
    record = BuildRecord(
        engine="openvino",
        weight_format=weight_format,
        content_digest=content_digest(artifact),
        model=make(artifact, weight_format, output),
        versions=made_with,
    )
    write_record(record, output)
    return record


def serve(jobs: BinaryIO, answers: BinaryIO) -> None:
    """Do every job of `jobs` in turn. A fault of one does not end the others."""
    for line in jobs:
        job = msgspec.json.decode(line, type=Job)
        try:
            build(Path(job.artifact), job.weight_format, Path(job.output))
            answer = Answer()
        except ModelError as error:
            answer = Answer(message=str(error), refused=True)
        except (TrimtabError, RuntimeError, ValueError, OSError) as error:
            answer = Answer(message=str(error) if isinstance(error, EngineError) else repr(error))
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def main() -> None:
    lifeline.die_with_parent()
    quiet_libraries()
    # Libraries print to descriptor 1; the answers keep a descriptor of their own.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
