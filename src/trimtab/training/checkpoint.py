"""Checkpoints of a training run: weights, optimizer state, random states, place in the data, curve.

Whole or not there: written to a temporary folder, synced, renamed; the last two are kept. Each says which
job it belongs to, and another job's is refused, so a run never goes on silently from a different model.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import msgspec
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner

from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import UsageError
from trimtab.training.job import Point
from trimtab.training.storage import METADATA, SafetensorsReader, SafetensorsWriter

KEPT = 2
_PROGRESS = "progress.json"


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a run is. `step` steps are done; the sums are of the time and loss so far (see
    `training.loop`).
    """

    job: str
    step: int
    position: int
    seconds: float = 0.0
    optimizer_seconds: float = 0.0
    loss_sum: float = 0.0
    loss_steps: int = 0
    curve: tuple[Point, ...] = ()


def newest(folder: Path) -> Path | None:
    """The last whole checkpoint in a folder, if any."""
    return next((path for path in reversed(_by_step(folder)) if (path / METADATA).is_file()), None)


def save(folder: Path, progress: Progress, tensors: dict[str, torch.Tensor], ranks: Ranks) -> Path:
    """Every rank calls it with equal `progress`; names held by several ranks are written once."""
    final = folder / f"step-{progress.step}"
    temporary = folder / f".step-{progress.step}.part"
    if ranks.first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        (temporary / _PROGRESS).write_bytes(msgspec.json.encode(progress))
    ranks.barrier()
    with warnings.catch_warnings():
        # A group of one has no process group, which DCP warns about and handles.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.save(
            {**tensors, _random_name(ranks.rank): torch.get_rng_state()},
            storage_writer=SafetensorsWriter(temporary, ranks.rank),
            planner=DefaultSavePlanner(flatten_state_dict=False),
        )
    if ranks.first:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for old in _by_step(folder)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    ranks.barrier()
    return final


def restore(path: Path, job: str, tensors: dict[str, torch.Tensor], ranks: Ranks) -> Progress:
    """Fill `tensors` in place. Raises `UsageError` for a checkpoint of another job (`job` is its identity)."""
    progress = msgspec.json.decode((path / _PROGRESS).read_bytes(), type=Progress)
    if progress.job != job:
        raise UsageError(
            "the checkpoint belongs to another job.",
            where=str(path),
            remedy="Use --fresh to start over, or another --output.",
        )
    reader = SafetensorsReader(path)
    state = torch.get_rng_state()
    wanted = dict(tensors)
    if _random_name(ranks.rank) in reader.names:
        wanted[_random_name(ranks.rank)] = state
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(wanted, storage_reader=reader, planner=DefaultLoadPlanner(flatten_state_dict=False))
    torch.set_rng_state(state)
    return progress


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def _random_name(rank: int) -> str:
    return f"random.rank{rank}"
