"""A step whose loss is no number: its batch is kept, a share per rank, so that the fault can be looked at again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import torch
from safetensors.torch import save_file

from trimtab.data.samples.base import Batch
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import TrimtabError
from trimtab.training.job import TrainJob


class Offence(msgspec.Struct, frozen=True, kw_only=True):
    """One rank's part, kept as JSON beside its batch. Numbers that are none are written as text.

    `position` is the place in the data order of the global batch's first sample; `samples` is this rank's share.
    """

    step: int
    rank: int
    position: int
    samples: int
    loss: str
    gradient_norm: str
    job: TrainJob


def stop_at(
    job: TrainJob,
    ranks: Ranks,
    *,
    step: int,
    position: int,
    batch: Batch,
    loss: float,
    norm: float,
) -> TrimtabError:
    """Save this rank's `batch` in `not-a-number-step-N/`; the error that names them.

    Every rank calls it. The folder lies with the checkpoints, or beside the output.
    """
    root = Path(job.checkpoints) if job.checkpoints else Path(job.output).parent
    folder = root / f"not-a-number-step-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: torch.from_numpy(values) for name, values in batch.items()},
        folder / f"rank{ranks.rank}.safetensors",
    )
    record = Offence(
        step=step,
        rank=ranks.rank,
        position=position,
        samples=len(next(iter(batch.values()))),
        loss=str(loss),
        gradient_norm=str(norm),
        job=job,
    )
    (folder / f"rank{ranks.rank}.json").write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    at_fault = ranks.sum(_one_hot(ranks, not np.isfinite(loss)))
    blamed = [str(rank) for rank, found in enumerate(at_fault.tolist()) if found]
    whose = f" of rank {', '.join(blamed)}" if blamed and ranks.world > 1 else ""
    ranks.barrier()
    return TrimtabError(
        f"the loss is no longer a number at step {step} of {job.steps}; the batch{whose} is saved in {folder}.",
        where="training",
        remedy="Lower training.learning_rate, use precision: float32, or look at that batch.",
    )


def _one_hot(ranks: Ranks, mine: bool) -> torch.Tensor:
    flags = torch.zeros(ranks.world, dtype=torch.int64)
    flags[ranks.rank] = int(mine)
    return flags
