"""Batch norms over the whole batch, though every rank sees its share: statistics are summed over ranks.

torch's own synchronised norm needs a GPU. Means first, then squares around them, as one process computes them
(Ioffe and Szegedy 2015); running statistics are then equal on all ranks. With micro-batches a batch is one of those.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trimtab.parallel.mesh import Grid
from trimtab.spec.errors import UsageError

_BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 (the base of all of them has no other name)


def has_batch_norms(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())


def share_statistics(module: nn.Module, grid: Grid) -> None:
    """In place. Raises `UsageError` for a pipeline, whose micro-batches would each have their own statistics."""
    if not has_batch_norms(module) or grid.layout.world == 1:
        return
    if grid.layout.pipeline > 1:
        raise UsageError(
            "batch norms need the whole batch, and a pipeline cuts it.",
            where="parallel.pipeline",
            remedy="Use data or shard.",
        )
    group = grid.ranks.group
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.forward = partial(_normalize, part, part.forward, group)


class _Sum(torch.autograd.Function):
    """A sum over ranks, whose gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
        ctx.group = group
        summed = values.clone()
        dist.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        summed = upstream[0].contiguous().clone()
        dist.all_reduce(summed, group=ctx.group)
        return summed, None


def _normalize(norm: Any, local: Any, group: dist.ProcessGroup | None, values: torch.Tensor) -> torch.Tensor:
    """(n, channels, …) → same shape and type. Outside of training a rank needs nobody."""
    if not norm.training:
        return local(values)
    given = values.dtype
    # Sums over a whole batch are beyond what 16 bits can count.
    values = values if given == torch.float64 else values.float()
    axes = [axis for axis in range(values.ndim) if axis != 1]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    own = torch.tensor([values.numel() / values.shape[1]], dtype=values.dtype, device=values.device)
    sums = _Sum.apply(torch.cat([values.sum(axes), own]), group)
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = values - mean.view(shape)
    variance = _Sum.apply(centred.pow(2).sum(axes), group) / count
    if norm.track_running_stats:
        _track(norm, mean.detach(), variance.detach() * count / (count - 1))
    normal = centred * torch.rsqrt(variance + norm.eps).view(shape)
    if norm.affine:
        normal = normal * norm.weight.view(shape) + norm.bias.view(shape)
    return normal.to(given)


def _track(norm: Any, mean: torch.Tensor, variance: torch.Tensor) -> None:
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)
