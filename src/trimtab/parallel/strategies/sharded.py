"""Sharded data parallelism (FSDP2): ranks share parameters, gradients and optimizer state; layers are gathered
when they are needed. With `reshard` they are freed between forward and backward pass (ZeRO-3, else ZeRO-2); with
replicas beside it is hybrid.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard

from trimtab.parallel.mesh import Grid
from trimtab.parallel.strategies.blocks import blocks_of


def shard(module: nn.Module, grid: Grid, *, offload: bool) -> None:
    """Cut a module in place, block by block. Gradients are means over shards and replicas.

    `offload`: shards, their gradients and so the optimizer stay in host memory; what is gathered is on the device.
    """
    policy = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offload else OffloadPolicy()
    mesh = grid.axis("replicate", "shard") if grid.replicas > 1 else grid.axis("shard")
    for block in blocks_of(module):
        fully_shard(block, mesh=mesh, reshard_after_forward=grid.layout.reshard, offload_policy=policy)
    # What is outside of the blocks is needed at both ends of a step, so it stays gathered.
    fully_shard(module, mesh=mesh, reshard_after_forward=False, offload_policy=policy)


def postpone_sums(module: nn.Module, postponed: bool) -> None:
    """Let replicas beside the shards sum their gradients once a step, after the last micro-batch.

    Shards are reduced in every micro-batch. To postpone that too would save (m - 1) reductions of m, and keep the
    gradients of the whole model on every rank meanwhile, 4 bytes a parameter: more than the 16 ÷ n that sharding
    leaves of all states. Who shards does so for memory; who has the memory is faster with data=N. (Stages of a
    pipeline keep gradients whole all the same: torch's schedules reduce them at the end of a step alone.)
    """
    if isinstance(module, FSDPModule):
        module.set_requires_all_reduce(not postponed)
