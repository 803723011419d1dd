"""Loss on held-out windows during training: the same few windows every time, shared over the ranks."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from trimtab.data.loader import share
from trimtab.data.prepared import Prepared
from trimtab.parallel.distributed import Distributed
from trimtab.training.objectives.divergence import IGNORED


class HeldOut:
    """`count` windows of the validation split, evenly spaced; none if the data has no such split."""

    def __init__(self, data: Prepared, distributed: Distributed, *, length: int, count: int) -> None:
        self._distributed = distributed
        self._windows = torch.empty(0, length, dtype=torch.int64)
        self._all = self._rounds = 0
        if count and data.record.tokens["validation"] > length:
            windows, _ = data.windows("validation", length)
            chosen = np.unique(np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int))
            grid = distributed.grid
            mine = share(len(chosen), grid.share, grid.shares)
            self._windows = torch.from_numpy(windows[chosen[mine.start : mine.stop]].astype(np.int64))
            self._all = len(chosen)
            # Ranks that gather weights from each other must all take as many passes as the busiest.
            self._rounds = -(-len(chosen) // grid.shares)

    @torch.no_grad()
    def loss(self) -> float | None:
        """Mean cross-entropy in nats per token over all ranks' windows. Every rank must call it."""
        if not self._all:
            return None
        grid = self._distributed.grid
        total = 0.0
        self._distributed.train(False)
        for number in range(self._rounds):
            real = number < len(self._windows)
            if not real and self._distributed.whole:
                break
            window = self._windows[number : number + 1] if real else self._filler()
            # Ranks that share sequences take whole shares; what is added at the end no token before it sees.
            surplus = -(window.shape[1] - 1) % grid.layout.length_multiple
            targets = functional.pad(window, (0, surplus), value=IGNORED).to(grid.ranks.device)
            loss = self._distributed.total(targets[:, :-1].clamp_min(0), targets, _cross_entropy)
            total += loss if real else 0.0
        self._distributed.train()
        summed = grid.ranks.sum(torch.tensor(total, dtype=torch.float64))
        return summed.item() / (self._all * (self._windows.shape[1] - 1))

    def _filler(self) -> torch.Tensor:
        return torch.zeros(1, self._windows.shape[1], dtype=torch.int64)


def _cross_entropy(logits: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Sum over the tokens of (n, length + 1) windows."""
    return functional.cross_entropy(
        logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="sum", ignore_index=IGNORED
    )
