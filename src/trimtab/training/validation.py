"""Loss on held-out windows during training: the same few windows every time, shared over the ranks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from trimtab.data.loader import share
from trimtab.data.prepared import Prepared
from trimtab.parallel.ranks import Ranks


class HeldOut:
    """`count` windows of the validation split, evenly spaced; none if the data has no such split."""

    def __init__(self, data: Prepared, *, length: int, count: int, ranks: Ranks) -> None:
        self._ranks = ranks
        self._windows = torch.empty(0, length, dtype=torch.int64)
        if count and data.record.tokens["validation"] > length:
            windows, _ = data.windows("validation", length)
            chosen = np.unique(np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int))
            mine = share(len(chosen), ranks.rank, ranks.world)
            self._windows = torch.from_numpy(windows[chosen[mine.start : mine.stop]].astype(np.int64))

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float | None:
        """Mean cross-entropy in nats per token over all ranks' windows. Every rank must call it."""
        totals = torch.zeros(2, dtype=torch.float64)
        model.eval()
        for window in self._windows.split(1):
            ids = window.to(self._ranks.device)
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits
            targets = ids[:, 1:].flatten()
            totals[0] += functional.cross_entropy(logits.flatten(0, 1), targets, reduction="sum").item()
            totals[1] += ids.shape[1] - 1
        model.train()
        self._ranks.sum(totals)
        return (totals[0] / totals[1]).item() if totals[1] else None
