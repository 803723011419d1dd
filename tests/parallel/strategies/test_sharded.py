import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from trimtab.parallel.strategies.sharded import postpone_sums


def test_no_micro_batch_leaves_whole_gradients_behind(tmp_path):
    """What is not the last one's is reduced as well: a whole gradient would hide in the unsharded weight."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        postpone_sums(model, True)
        model(torch.ones(1, 4)).sum().backward()
        assert all(isinstance(parameter.grad, DTensor) for parameter in model.parameters())
    finally:
        dist.destroy_process_group()
