"""Whether what a run gives can be written where it is to go: asked before the first step, not after the last."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import TrimtabError
from trimtab.spec.units import format_bytes
from trimtab.store.durable import check_writable
from trimtab.training.job import TrainJob

# The trained model is float32.
_BYTES_EACH = 4
# Weights and at most two moments of each.
_STATES = 3


def check_places(job: TrainJob, model: nn.Module, ranks: Ranks, warn: Callable[[str], None]) -> None:
    """Raises `TrimtabError` on every rank where the first may not write, or has no room for the trained model.

    `warn` is told where the model would fit and a checkpoint beside it would not.
    """
    fault = None
    if ranks.first:
        try:
            _check(job, _BYTES_EACH * sum(weight.numel() for weight in model.parameters()), warn)
        except TrimtabError as error:
            fault = error
    if ranks.sum(torch.tensor([int(fault is not None)], device=ranks.device)).item():
        raise fault or TrimtabError("the first rank cannot write what is trained.", where=job.output)


def _check(job: TrainJob, model_bytes: int, warn: Callable[[str], None]) -> None:
    output = Path(job.output)
    folders = [output.parent] + ([Path(job.checkpoints)] if job.checkpoints else [])
    for folder in folders:
        check_writable(folder)
    free = _free(output.parent)
    if free < model_bytes:
        raise TrimtabError(
            f"the trained model will take {format_bytes(model_bytes)}, and {format_bytes(free)} are free.",
            where=str(output),
            remedy="Free space, or give an --output elsewhere.",
        )
    if job.checkpoints and free < model_bytes + (wanted := _STATES * model_bytes):
        warn(
            f"there is little room in {output.parent}: the model and a checkpoint take "
            f"{format_bytes(model_bytes + wanted)}, and {format_bytes(free)} are free."
        )


def _free(folder: Path) -> int:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free
