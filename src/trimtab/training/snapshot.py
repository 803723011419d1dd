"""Named tensors, whole or cut in any way, to a folder and back into tensors that may be cut in another way."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner

from trimtab.parallel.ranks import Ranks
from trimtab.training.storage import SafetensorsReader, SafetensorsWriter


def write(folder: Path, tensors: dict[str, torch.Tensor], ranks: Ranks) -> None:
    """Every rank calls it, each with what it holds; names held by several ranks are written once."""
    with warnings.catch_warnings():
        # A group of one has no process group, which DCP warns about and handles.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            dcp.save(
                tensors,
                storage_writer=SafetensorsWriter(folder, ranks.rank),
                planner=DefaultSavePlanner(flatten_state_dict=False),
                process_group=ranks.group,
                no_dist=ranks.world == 1,
            )
        except CheckpointException as error:
            # On every rank it names those that failed; why is in the cause.
            _, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
            raise cause from error


def read(folder: Path, tensors: dict[str, torch.Tensor], ranks: Ranks | None) -> None:
    """Fill `tensors` in place. Every rank of `ranks` calls it; None: this process reads alone."""
    alone = ranks is None or ranks.world == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(
            tensors,
            storage_reader=SafetensorsReader(folder),
            planner=DefaultLoadPlanner(flatten_state_dict=False),
            process_group=None if ranks is None else ranks.group,
            no_dist=alone,
        )


def names(folder: Path) -> set[str]:
    """Of the tensors in a folder."""
    return SafetensorsReader(folder).names
