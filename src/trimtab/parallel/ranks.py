"""One rank's view of its group: who it is, its device, and the few collectives that tasks need.

A group of one needs no process group, so tasks run in-process in tests exactly as they do in a rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

# A rank may save or validate alone for this long while the others wait.
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    # None: all processes.
    group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place. Every rank must call it."""
        if self.world > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def broadcast(self, values: torch.Tensor) -> torch.Tensor:
        """Rank 0's values, in place."""
        if self.world > 1:
            dist.broadcast(values, 0, group=self.group)
        return values

    def gather(self, parts: torch.Tensor, part: torch.Tensor) -> None:
        """Fill `parts`, flat and `world` times as long as `part`, with every rank's `part`."""
        if self.world > 1:
            dist.all_gather_into_tensor(parts, part, group=self.group)
        else:
            parts.copy_(part)

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier(group=self.group)


def join(rank: int, world: int, store: Path) -> Ranks:
    """Meet the other ranks through a file. NCCL where every rank has a GPU of its own, else gloo."""
    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= world
    device = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=dist.FileStore(str(store), world),
            rank=rank,
            world_size=world,
            timeout=_TIMEOUT,
        )
    return Ranks(rank=rank, world=world, device=device)


def leave(ranks: Ranks) -> None:
    if ranks.world > 1:
        dist.destroy_process_group()
