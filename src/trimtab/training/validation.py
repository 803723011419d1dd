"""Loss on held-out samples during training: the same few every time, shared over the ranks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from trimtab.data.loader import share
from trimtab.data.samples.base import Samples
from trimtab.parallel.distributed import Distributed
from trimtab.training.objectives.base import Objective


class Measured(NamedTuple):
    """`loss` is the mean cross-entropy in nats, `accuracy` the share that a classifier gets right."""

    loss: float
    accuracy: float | None


class HeldOut:
    """`count` of the samples, evenly spaced; `at_once` bounds how many a rank computes in one pass."""

    def __init__(
        self,
        samples: Samples | None,
        objective: Objective,
        distributed: Distributed,
        *,
        count: int,
        at_once: int,
    ) -> None:
        self._samples, self._objective, self._distributed = samples, objective, distributed
        found = samples.count if samples else 0
        chosen = np.unique(np.linspace(0, found - 1, min(count, found)).round().astype(int)).tolist()
        grid = distributed.grid
        mine = share(len(chosen), grid.share, grid.shares)
        own = chosen[mine.start : mine.stop]
        self._passes = [own[start : start + at_once] for start in range(0, len(own), at_once)]
        # Ranks that gather weights from each other must all take as many passes as the busiest.
        self._rounds = -(-len(chosen) // (grid.shares * at_once))
        self._filler = chosen[:1]

    @torch.no_grad()
    def measure(self) -> Measured | None:
        """Over all ranks' samples; None if there are none, or nothing of them counts. Every rank must call it."""
        if self._samples is None or not self._rounds:
            return None
        sums = torch.zeros(3, dtype=torch.float64)
        self._distributed.train(False)
        for number in range(self._rounds):
            real = number < len(self._passes)
            if not real and self._distributed.whole:
                break
            found = self._pass(self._samples, self._passes[number] if real else self._filler)
            sums += found if real else 0.0
        self._distributed.train()
        ranks = self._distributed.grid.ranks
        loss, count, right = ranks.sum(sums).tolist()
        if not count:
            return None
        return Measured(loss / count, right / count if self._objective.classifies else None)

    def _pass(self, samples: Samples, numbers: list[int]) -> torch.Tensor:
        """The part of this rank in the loss, in what counts, and in what is right."""
        device, right = self._distributed.grid.ranks.device, 0
        batch = {name: torch.from_numpy(v).to(device) for name, v in samples.take(numbers, numbers).items()}
        inputs, targets, count = self._objective.prepare(batch)

        def compare(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            nonlocal right
            if self._objective.classifies:
                right = int((logits.argmax(-1) == wanted).sum())
            return self._objective.held_out(logits, wanted)

        loss = self._distributed.total(inputs, targets, compare)
        return torch.tensor([loss, count if self._distributed.counts else 0, right], dtype=torch.float64)
