import torch
from torch import nn

from trimtab.parallel.strategies import batch_norm


def alone(values, group):
    """A group of one: the sum is there already."""


def test_statistics_of_sixteen_bit_values_are_summed_in_float32(monkeypatch):
    """Under autocast a rank sees bf16, which cannot even count to 257."""
    monkeypatch.setattr(batch_norm.dist, "all_reduce", alone)
    torch.manual_seed(0)
    values = (3 + torch.randn(50, 4, 5, 5)).bfloat16()
    stock, ours = nn.BatchNorm2d(4).train(), nn.BatchNorm2d(4).train()
    found = batch_norm._normalize(ours, ours.forward, None, values)
    assert found.dtype == torch.bfloat16
    wanted = stock(values.float())
    torch.testing.assert_close(found.float(), wanted, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(ours.running_mean, stock.running_mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.running_var, stock.running_var, rtol=1e-5, atol=1e-6)
