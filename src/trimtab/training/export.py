"""The trained model as one stock folder, whatever layout it was trained in.

Where ranks hold parts, they write them side by side and the first rank reads them back whole: no rank needs more
memory than one model, and it is the way of checkpoints, which fit any layout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from trimtab.models.load import load
from trimtab.models.load import save as save_model
from trimtab.parallel.distributed import Distributed
from trimtab.spec.tasks import Task
from trimtab.training.snapshot import names, read, write


def export(model: torch.nn.Module, distributed: Distributed, folder: Path, source: Path, task: Task) -> None:
    """Save to `folder` with the companion files of `source`. Every rank calls it; it is done when it returns."""
    ranks = distributed.grid.ranks
    if distributed.whole:
        if ranks.first:
            save_model(model, folder, source)  # pyrefly: ignore[bad-argument-type] (training loads a stock model)
        ranks.barrier()
        return
    parts = folder.with_name(f".{folder.name}.parts")
    if ranks.first:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
    ranks.barrier()
    write(parts, distributed.weights(), ranks)
    ranks.barrier()
    if ranks.first:
        whole, there = load(source, task=task), names(parts)
        # Running statistics are no parameters, and belong to the model all the same.
        held = dict(whole.named_parameters()) | dict(whole.named_buffers())
        read(parts, {name: values.detach() for name, values in held.items() if name in there}, None)
        save_model(whole, folder, source)
        shutil.rmtree(parts)
    ranks.barrier()
