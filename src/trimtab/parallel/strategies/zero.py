"""ZeRO stage 1 (Rajbhandari et al. 2020): replicas share the optimizer state of weights that all of them hold.

Each replica moves its rows of every parameter and hands the moved rows to the others. torch's own
ZeroRedundancyOptimizer keeps state that distributed checkpoints cannot read; here it is a sharded tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import Shard

from trimtab.parallel.mesh import Grid
from trimtab.parallel.strategies.parts import Part


def share_state(parts: Sequence[Part], grid: Grid) -> list[Part]:
    """Every part becomes this replica's rows of it; scalars stay whole."""
    mesh = grid.axis("replicate")
    shared = []
    for part in parts:
        if part.parameter.ndim == 0:
            shared.append(part)
            continue
        rows = rows_of(len(part.parameter), grid.index("replicate"), grid.replicas)
        local = nn.Parameter(part.parameter.detach()[rows], requires_grad=part.parameter.requires_grad)
        copies = part.copies // grid.replicas
        shared.append(replace(part, local=local, copies=copies, rows=rows, mesh=mesh, placements=[Shard(0)]))
    return shared


def rows_of(count: int, index: int, replicas: int) -> slice:
    """As sharded tensors are cut: equal blocks, rounded up, the last ones shorter or empty."""
    size = -(-count // replicas)
    return slice(min(count, index * size), min(count, (index + 1) * size))


@torch.no_grad()
def exchange_rows(parts: Sequence[Part], grid: Grid) -> None:
    """After an optimizer step: every replica gets the rows that the others moved, in one message."""
    moved = [part for part in parts if part.rows is not None]
    if not moved:
        return
    blocks = [_block(part, grid.replicas) for part in moved]
    sent = moved[0].local.new_zeros(sum(blocks))
    for part, place in zip(moved, sent.split(blocks), strict=True):
        place[: part.local.numel()].copy_(part.local.flatten())
    received = sent.new_empty(grid.replicas, len(sent))
    dist.all_gather_single(received.view(-1), sent, group=grid.group("replicate"))
    for replica, message in enumerate(received):
        for part, place in zip(moved, message.split(blocks), strict=True):
            rows = part.parameter.detach()[rows_of(len(part.parameter), replica, grid.replicas)]
            rows.copy_(place[: rows.numel()].view_as(rows))


def _block(part: Part, replicas: int) -> int:
    """Elements of the largest share of rows."""
    count = len(part.parameter)
    return -(-count // replicas) * (part.parameter.numel() // count) if count else 0
