"""Sharded data parallelism (FSDP2): ranks share parameters, gradients and optimizer state; layers are gathered
when they are needed. With `reshard` they are freed between forward and backward pass (ZeRO-3, else ZeRO-2); with
replicas beside it is hybrid.
"""

from __future__ import annotations

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from trimtab.parallel.mesh import Grid
from trimtab.parallel.strategies.blocks import blocks_of


def shard(module: nn.Module, grid: Grid) -> None:
    """Cut a module in place, block by block. Gradients are means over shards and replicas."""
    mesh = grid.axis("replicate", "shard") if grid.replicas > 1 else grid.axis("shard")
    for block in blocks_of(module):
        fully_shard(block, mesh=mesh, reshard_after_forward=grid.layout.reshard)
    # What is outside of the blocks is needed at both ends of a step, so it stays gathered.
    fully_shard(module, mesh=mesh, reshard_after_forward=False)


def postpone_sums(module: nn.Module, postponed: bool) -> None:
    """Keep gradients of all but the last micro-batch to this rank."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(not postponed)
