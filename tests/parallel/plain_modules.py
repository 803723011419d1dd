"""Plain modules under strategies, in rank processes. Run by `test_plain_modules`."""

import torch
from torch import nn

from trimtab.parallel.compose import parallelize
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout, parse_layout


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 4)
    ).double()


def losses(layout, ranks, steps=5):
    model = network()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(8, 12, generator=generator, dtype=torch.float64)
    targets = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    distributed = parallelize(model, layout, ranks=ranks, sample=inputs[:2])
    optimizer = torch.optim.Adam(distributed.parameters(), lr=1e-2)
    seen = []
    for _ in range(steps):
        x, y = distributed.share(inputs), distributed.share(targets)
        criterion = nn.MSELoss(reduction="sum")
        seen.append(distributed.mean(distributed.backward(x, y, criterion, y.numel())))
        distributed.clip(0.3)
        distributed.step(optimizer)
    total = distributed.mean(distributed.total(x, y, nn.MSELoss(reduction="sum")))
    return [*seen, total / targets.numel()], sorted(distributed.parts)


def compared(layout, ranks):
    """Every strategy that a stack of Linear layers can have, of two processes."""
    wanted, names = losses(Layout(), Ranks())
    assert wanted == sorted(wanted, reverse=True)
    for text in (
        "data=2",
        "data=2,zero=1",
        "shard=2,reshard=on",
        "tensor=2",
        "pipeline=2",
        "pipeline=2,virtual=2,schedule=interleaved",
        "shard=2,recompute=full",
    ):
        found, held = losses(parse_layout(text), ranks)
        worst = max(abs(a - b) for a, b in zip(found, wanted, strict=True))
        assert worst <= 1e-12, (text, worst)
        assert set(held) <= set(names), text
        assert "pipeline" in text or held == names
