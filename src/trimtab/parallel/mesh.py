"""The ranks of a layout as one device mesh, and the groups that each strategy talks to.

Axes from the outside in: pipeline, replicate, shard, tensor, so that neighbouring ranks share layers, which talk
most. `replicate` is data × context: both hold the same weights and add up their gradients.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout

AXES = ("pipeline", "replicate", "shard", "tensor")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A layout laid over ranks 0 .. world - 1, seen from one of them.

    Where there is nothing but data there is no mesh: the ranks are the only group. `context_group` shares
    sequences with this rank; `ends_group` are the first and last stage of its pipeline, None for the others.
    """

    layout: Layout
    ranks: Ranks
    mesh: DeviceMesh | None = None
    context_group: dist.ProcessGroup | None = None
    ends_group: dist.ProcessGroup | None = None

    def index(self, axis: str) -> int:
        """Where this rank stands on an axis of `AXES`."""
        sizes = _shape(self.layout)
        place = AXES.index(axis)
        return self.ranks.rank // math.prod(sizes[place + 1 :]) % sizes[place]

    def group(self, axis: str) -> dist.ProcessGroup | None:
        return self.ranks.group if self.mesh is None else self.mesh.get_group(axis)

    def axis(self, *names: str) -> DeviceMesh:
        """The part of the mesh that strategies of torch take."""
        if self.mesh is None:
            raise ValueError(f"{self.layout} has no mesh")
        return self.mesh[names]

    @property
    def replicas(self) -> int:
        """Ranks that hold the same weights: data × context."""
        return self.layout.data * self.layout.context

    @property
    def shares(self) -> int:
        """How many ways the sequences of a batch are shared: data × shard."""
        return self.layout.data * self.layout.shard

    @property
    def share(self) -> int:
        """Which of the `shares` this rank computes, alone or with others."""
        return self.index("replicate") // self.layout.context * self.layout.shard + self.index("shard")

    @property
    def context_index(self) -> int:
        return self.index("replicate") % self.layout.context

    @property
    def stream(self) -> int:
        """Number of this rank's random stream: ranks that compute the same activations draw the same numbers."""
        return self.share * self.layout.context + self.context_index


def build_grid(layout: Layout, ranks: Ranks) -> Grid | None:
    """The grid as this rank sees it; every rank must call it. The layout takes the first `layout.world` ranks.

    The others get None. Raises `UsageError` if there are too few.
    """
    if layout.world > ranks.world:
        raise UsageError(
            f"{layout} needs {layout.world} processes, and there are {ranks.world}.",
            where="parallel",
            remedy=f"Start {layout.world}.",
        )
    numbers = torch.arange(layout.world).view(_shape(layout))
    inside = ranks if layout.world == ranks.world else _subgroup(layout.world, ranks)
    mesh = context = ends = None
    if layout.world > 1 and (layout.world > layout.data or layout.zero):
        mesh = DeviceMesh(ranks.device.type, numbers, mesh_dim_names=AXES)
        context = _own(_sequences(numbers, layout), ranks)
        ends = _own(_ends(numbers), ranks)
    if ranks.rank >= layout.world:
        return None
    return Grid(layout=layout, ranks=inside, mesh=mesh, context_group=context, ends_group=ends)


def _shape(layout: Layout) -> tuple[int, ...]:
    return (layout.pipeline, layout.data * layout.context, layout.shard, layout.tensor)


def _subgroup(world: int, ranks: Ranks) -> Ranks:
    return replace(ranks, world=world, group=_group(list(range(world))) if world > 1 else None)


def _sequences(numbers: torch.Tensor, layout: Layout) -> list[list[int]]:
    """Ranks that differ in their place in the sequence alone."""
    if layout.context == 1:
        return []
    split = numbers.view(layout.pipeline, layout.data, layout.context, layout.shard, layout.tensor)
    return split.movedim(2, -1).reshape(-1, layout.context).tolist()


def _ends(numbers: torch.Tensor) -> list[list[int]]:
    """First and last rank of every pipeline."""
    return numbers[[0, -1]].flatten(1).T.tolist() if len(numbers) > 1 else []


def _own(groups: list[list[int]], ranks: Ranks) -> dist.ProcessGroup | None:
    """Makes every group, which all ranks must do in one order; returns the one that this rank is in."""
    made = [_group(members) for members in groups]
    return next((group for group, members in zip(made, groups, strict=True) if ranks.rank in members), None)


def _group(members: list[int]) -> dist.ProcessGroup | None:
    """Those outside of it get a number of torch's that means nothing here."""
    group = dist.new_group(members)
    return group if isinstance(group, dist.ProcessGroup) else None
