"""A run under a layout against the same run in one process: how far apart, and where they part first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from trimtab.parallel.mesh import Grid
from trimtab.parallel.ranks import Ranks
from trimtab.training.parity.job import Difference

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One process's losses, weights after every step and how far rounding may have led them, and moments after the
    step at which it was saved.
    """

    losses: Sequence[float]
    weights: Sequence[Tensors]
    reach: Sequence[Tensors]
    moments: Sequence[Tensors]


def gaps(found: Tensors, wanted: Tensors, ranks: Ranks, reach: Tensors | None = None) -> torch.Tensor:
    """(2, of `wanted`): largest absolute difference of each, in order, over all ranks, of which each has some; and what
    is left of it beyond `reach`.
    """
    apart = torch.zeros(2, len(wanted), dtype=torch.float64)
    for place, (name, reference) in enumerate(wanted.items()):
        if name in found and reference.numel():
            gap = (found[name] - reference).abs()
            # A number that is none is as far off as can be.
            gap = gap.nan_to_num(nan=float("inf"))
            apart[0, place] = gap.max().item()
            left = gap - reach[name] if reach is not None and name in reach else gap
            apart[1, place] = left.max().clamp(min=0.0).item()
    if ranks.world > 1:
        dist.all_reduce(apart, op=dist.ReduceOp.MAX, group=ranks.group)
    return apart


def first_difference(
    losses: Sequence[float],
    apart: Sequence[torch.Tensor],
    reference: Reference,
    *,
    tolerance: float,
    first_step: int = 0,
) -> Difference | None:
    """`apart` are the `gaps` of the weights after every step; what rounding does not explain counts."""
    names = list(reference.weights[0])
    for index, (loss, (_, gap)) in enumerate(zip(losses, apart, strict=True)):
        step = first_step + index
        # The loss of a step is computed before its update.
        loss_gap = abs(loss - reference.losses[step])
        if not loss_gap <= tolerance:
            return Difference(step=step + 1, layer=None, parameter=None, difference=loss_gap)
        beyond = (gap > tolerance).nonzero().flatten().tolist()
        if beyond:
            name = names[beyond[0]]
            return Difference(
                step=step + 1, layer=_layer(name), parameter=name, difference=gap[beyond[0]].item()
            )
    return None


def _layer(name: str) -> str:
    """`model.layers.3` of `model.layers.3.mlp.up_proj.weight`; of others, the module that holds it."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1])


def same_everywhere(value: bool, grid: Grid) -> bool:
    """Whether it is true on every rank."""
    return bool(grid.ranks.sum(torch.tensor(int(not value))).item() == 0)
