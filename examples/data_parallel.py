"""Train a small network over two processes that share every batch: python examples/data_parallel.py"""

import torch
from torch import nn

from trimtab.parallel import parallelize, spawn
from trimtab.spec.layout import Layout


def train(layout, ranks):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    inputs, targets = torch.randn(64, 100), torch.randn(64, 10)
    model = parallelize(network, layout, ranks=ranks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(5):
        x, y = model.share(inputs), model.share(targets)
        loss = model.mean(model.backward(x, y, nn.MSELoss(reduction="sum"), count=y.numel()))
        model.step(optimizer)
        if ranks.first:
            print(f"step {step + 1}: loss {loss:.6f}")


if __name__ == "__main__":
    spawn(train, Layout(data=2))
