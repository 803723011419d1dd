"""Checkpoints of a training run on disk: which there are, whether one is whole, which to keep, and reading one.

A checkpoint is a folder `step-N`, renamed into place when all of it is written and synced (`training.saver`). Each
file's digest is in its metadata, so one that was damaged later is named, never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from torch.distributed.checkpoint.api import CheckpointException

from trimtab.parallel.ranks import Ranks
from trimtab.spec.artifact import file_digest
from trimtab.spec.checkpoints import folder_of, steps
from trimtab.spec.errors import IntegrityError, UsageError
from trimtab.training import snapshot
from trimtab.training.job import Point, TrainJob
from trimtab.training.origin import Origin
from trimtab.training.precision import PrecisionName
from trimtab.training.storage import METADATA, Catalogue

PROGRESS = "progress.json"


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a run is. `step` steps are done; the sums are of time, and of the loss over all ranks since
    the last point of the curve.

    `validation_loss` is of this very step, None if it was not measured at it. `precision` is what `auto` came to.
    """

    origin: Origin
    step: int
    position: int
    seconds: float = 0.0
    optimizer_seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    curve: tuple[Point, ...] = ()
    validation_loss: float | None = None
    precision: PrecisionName | None = None


def progress_of(path: Path) -> Progress:
    """Raises `IntegrityError` naming the checkpoint if its record is not there or not whole."""
    try:
        return msgspec.json.decode((path / PROGRESS).read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError) as error:
        raise _torn(path, f"{PROGRESS} cannot be read") from error


def begun_precision(job: TrainJob) -> PrecisionName | None:
    """What a job that is to go on has computed in; None for a beginning."""
    if not job.resume or job.checkpoints is None:
        return None
    folder = Path(job.checkpoints)
    for step in reversed(steps(folder)):
        try:
            return progress_of(folder_of(folder, step)).precision
        except IntegrityError:
            continue
    return None


def check(path: Path, *, rank: int = 0, world: int = 1) -> None:
    """Raises `IntegrityError` naming a checkpoint that is torn, and its file. Ranks share the digesting."""
    step = progress_of(path).step
    if path.name != folder_of(path.parent, step).name:
        raise _torn(path, f"it is a copy of step {step}")
    try:
        catalogue = msgspec.json.decode((path / METADATA).read_bytes(), type=Catalogue)
    except (OSError, msgspec.MsgspecError) as error:
        raise _torn(path, f"{METADATA} cannot be read") from error
    files = sorted(catalogue.files.items())
    for name, (size, _) in files:
        if not (path / name).is_file():
            raise _torn(path, f"{name} is missing")
        if (found := (path / name).stat().st_size) != size:
            raise _torn(path, f"{name} has {found} bytes of {size}")
    for name, (_, digest) in files[rank::world]:
        if file_digest(path / name) != digest:
            raise _torn(path, f"{name} differs from its digest")


def _torn(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"the checkpoint {path.name} is torn: {why}.",
        where=str(path),
        remedy="Remove it to go on from an older one, or use --fresh to start over.",
    )


def surplus(kept: Sequence[tuple[int, float | None]], *, keep: int, best: bool) -> list[int]:
    """Steps that may go: all but the last `keep` and, with `best`, the one of lowest held-out loss.

    `kept` has (step, held-out loss) of every checkpoint.
    """
    last = {step for step, _ in sorted(kept)[-keep:]}
    measured = [(loss, step) for step, loss in kept if loss is not None]
    if best and measured:
        last.add(min(measured)[1])
    return sorted(step for step, _ in kept if step not in last)


def restore(path: Path, tensors: dict[str, torch.Tensor], ranks: Ranks) -> None:
    """Fill `tensors` in place. Every rank calls it."""
    try:
        snapshot.read(path, tensors, ranks)
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise UsageError(
            f"the checkpoint {path.name} does not fit the model: {first}",
            where=str(path),
            remedy="Use --fresh to start over.",
        ) from error
