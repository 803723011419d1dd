"""Rank processes in which one sum over ranks is left out; parity must say so. Run by `test_parity`."""

import torch
from torch.nn.parallel import DistributedDataParallel

from trimtab.parallel import compose, distributed
from trimtab.spec.layout import parse_layout
from trimtab.training.parity.job import ParityJob
from trimtab.training.parity.task import cases_of


def drop_one_bucket(module, grid):
    """DDP whose first bucket of gradients is not summed."""
    wrapped = DistributedDataParallel(module, bucket_cap_mb=0.01)

    def hook(_, bucket):
        if bucket.index() == 0:
            done = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done
        return (
            torch.distributed.all_reduce(bucket.buffer(), op=torch.distributed.ReduceOp.AVG, async_op=True)
            .get_future()
            .then(lambda future: future.value()[0])
        )

    wrapped.register_comm_hook(None, hook)
    return wrapped


def case(text, ranks):
    return next(iter(cases_of(ParityJob(layouts=(parse_layout(text),)), ranks)))


def broken(layout, ranks):
    assert case("data=2", ranks).equal
    compose.replicate = drop_one_bucket
    found = case("data=2", ranks)
    assert not found.equal
    # Adam's first step is the sign of the gradient, so the weights part at once and the loss after them.
    assert found.first_difference.step == 1
    assert found.first_difference.parameter is not None
    assert found.max_abs_loss_difference > 1e-6
    # A tied embedding whose two ends are not added up.
    assert case("pipeline=2", ranks).equal
    distributed.add_up = lambda *_: None
    found = case("pipeline=2", ranks)
    assert not found.equal
    assert found.first_difference.parameter == "model.embed_tokens.weight"
