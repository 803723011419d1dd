import pytest
import torch
from plain_modules import compared, network
from torch import nn

from trimtab.parallel.compose import parallelize
from trimtab.parallel.launching.script import spawn
from trimtab.parallel.strategies.recompute import recompute_activations
from trimtab.parallel.strategies.tensor import _stack_plan
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout


def test_every_strategy_gives_the_losses_of_one_process():
    spawn(compared, Layout(data=2))


def test_columns_and_rows_alternate_and_stop_at_what_needs_all_features():
    plan = _stack_plan(network(), 2)
    assert list(plan) == ["0", "2", "4", "6"]
    broken = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert list(_stack_plan(broken, 2)) == ["2", "4"]
    with pytest.raises(UsageError, match="no two Linear layers"):
        _stack_plan(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)), 2)
    with pytest.raises(UsageError, match="width of 5"):
        _stack_plan(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)), 2)


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="needs 2 processes, and there are 1"):
        parallelize(network(), Layout(data=2))
    with pytest.raises(UsageError, match="count every batch twice"):
        recompute_activations(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "full")


def test_one_process_needs_no_group():
    distributed = parallelize(network(), Layout())
    optimizer = torch.optim.SGD(distributed.parameters(), lr=0.1)
    inputs, targets = torch.ones(3, 12, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)
    first = distributed.backward(inputs, targets, nn.MSELoss(reduction="sum"), targets.numel())
    distributed.step(optimizer)
    assert all(parameter.grad is None for parameter in distributed.parameters())
    assert distributed.total(inputs, targets, nn.MSELoss(reduction="sum")) / targets.numel() < first
