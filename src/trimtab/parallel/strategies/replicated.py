"""Data parallelism: every replica computes its share of the batch, and gradients are added up.

Where nothing else cuts the model, torch's DDP overlaps that with the backward pass. Pipelines and tensor
parallelism end their backward pass in ways DDP does not see; there the sums are made once, after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trimtab.parallel.mesh import Grid

# As DDP's: large enough for bandwidth, small enough to hold one more copy of.
_BUCKET_BYTES = 25 << 20


def replicate(module: nn.Module, grid: Grid) -> DistributedDataParallel:
    """Gradients are means over the replicas once the backward pass ends."""
    device = grid.ranks.device
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        process_group=grid.group("replicate"),
        gradient_as_bucket_view=True,
        forward_sync_buffers=False,
    )


def add_up(tensors: Sequence[torch.Tensor], group: dist.ProcessGroup | None) -> None:
    """Sum each tensor over a group, in place, many in one message. Every member must call it alike."""
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.all_reduce(flat, group=group)
        for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(summed.view_as(tensor))


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    held = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if bucket and (held + size > _BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, held = [], 0
        bucket.append(tensor)
        held += size
    if bucket:
        yield bucket
