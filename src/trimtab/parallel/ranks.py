"""One rank's view of its group: who it is, its device, and the few collectives that tasks need.

A group of one needs no process group, so tasks run in-process in tests exactly as they do in a rank.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from trimtab.parallel.launching.pulse import Phase, Pulse

# A rank may prepare data, save or validate alone for this long while the others wait. Longer than the watch bears a
# rank that does not get on, since only the watch can name it.
_TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Ranks:
    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    # None: all processes.
    group: dist.ProcessGroup | None = None
    pulse: Pulse | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def at(self, phase: Phase, step: int = 0) -> None:
        """Tells whoever watches what this rank does now."""
        if self.pulse is not None:
            self.pulse.at(phase, step)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place. Every rank must call it."""
        if self.world > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def start_sum(self, value: float) -> Callable[[], float]:
        """Begin the sum of a number over ranks, and go on; what is returned waits for it. Every rank must call it."""
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        work = dist.all_reduce(total, group=self.group, async_op=True) if self.world > 1 else None

        def summed() -> float:
            if work is not None:
                work.wait()
            return total.item()

        return summed

    def largest(self, value: float) -> float:
        """The largest of all ranks' values. Every rank must call it."""
        most = torch.tensor(value, dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.all_reduce(most, dist.ReduceOp.MAX, group=self.group)
        return most.item()

    def broadcast(self, values: torch.Tensor) -> torch.Tensor:
        """Rank 0's values, in place."""
        if self.world > 1:
            dist.broadcast(values, 0, group=self.group)
        return values

    def gather(self, parts: torch.Tensor, part: torch.Tensor) -> None:
        """Fill `parts`, flat and `world` times as long as `part`, with every rank's `part`."""
        if self.world > 1:
            dist.all_gather_single(parts, part, group=self.group)
        else:
            parts.copy_(part)

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier(group=self.group)


def join(rank: int, world: int, store: Path, pulse: Pulse | None = None) -> Ranks:
    """Meet the other ranks of this machine through a file."""
    return meet(dist.FileStore(str(store), world) if world > 1 else None, rank, world, rank, pulse)


def meet(
    store: dist.Store | None, rank: int, world: int, local_rank: int, pulse: Pulse | None = None
) -> Ranks:
    """Meet the other ranks through a store (None: alone). NCCL where this rank has a GPU of its own, else gloo."""
    on_gpu = torch.cuda.is_available() and torch.cuda.device_count() >= _processes_here(world)
    device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    if store is not None:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=store,
            rank=rank,
            world_size=world,
            timeout=_TIMEOUT,
        )
    return Ranks(rank=rank, world=world, device=device, pulse=pulse)


def _processes_here(world: int) -> int:
    """Ranks on this machine: what a launcher says, else all."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world))


def leave(ranks: Ranks) -> None:
    if ranks.world > 1:
        dist.destroy_process_group()
