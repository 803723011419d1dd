"""Muon (Jordan et al. 2024): momentum, then the update of each matrix made orthogonal. Shared over ranks.

Every rank holds all gradients, but momentum and Newton-Schulz of a matrix belong to one rank, by a balanced
plan that all ranks compute alike; one collective then gives everybody all updates. Unlike torch.optim.Muon
it runs in the weights' own type (bf16 is emulated on most CPUs) and batches matrices of equal shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from trimtab.parallel.ranks import Ranks
from trimtab.training.orthogonal import orthogonalize

Shape = tuple[int, int]


def lying(shape: torch.Size) -> Shape:
    """(rows, columns) of a matrix laid on its long side."""
    return (min(shape), max(shape))


def cost(shape: Shape) -> int:
    """Multiply-adds of one Newton-Schulz step, up to a factor."""
    short, long = shape
    return 2 * short * short * long + short**3


def share_matrices(shapes: Mapping[str, Shape], world: int) -> list[list[str]]:
    """Which matrices each rank owns: largest first, each to the rank with the least work so far."""
    owned: list[list[str]] = [[] for _ in range(world)]
    work = [0] * world
    for name in sorted(shapes, key=lambda name: (-cost(shapes[name]), name)):
        rank = work.index(min(work))
        owned[rank].append(name)
        work[rank] += cost(shapes[name])
    return owned


class Muon:
    """`rate` and `weight_decay` as in AdamW; an update of an (m, n) matrix is scaled by √max(1, m ÷ n)."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        ranks: Ranks,
        *,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        self._parameters, self._ranks = parameters, ranks
        self._weight_decay, self._momentum = weight_decay, momentum
        shapes = {name: lying(parameter.shape) for name, parameter in parameters.items()}
        self._owned = share_matrices(shapes, ranks.world)
        mine: dict[Shape, list[str]] = {}
        for name in self._owned[ranks.rank]:
            mine.setdefault(shapes[name], []).append(name)
        sample = next(iter(parameters.values()))
        self._batches = {
            tuple(names): torch.zeros(len(names), *shape, dtype=sample.dtype, device=sample.device)
            for shape, names in mine.items()
        }
        self._updates = {names: torch.empty_like(batch) for names, batch in self._batches.items()}
        longest = max(sum(parameters[name].numel() for name in names) for names in self._owned)
        self._all = torch.zeros(ranks.world, longest, dtype=sample.dtype, device=sample.device)
        self._views = self._lay_out()

    def state(self) -> dict[str, torch.Tensor]:
        """The momentum of the matrices that this rank owns, each in its lying shape."""
        return {
            name: batch[index] for names, batch in self._batches.items() for index, name in enumerate(names)
        }

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for names, momenta in self._batches.items():
            updates = self._updates[names]
            for name, momentum, update in zip(names, momenta, updates, strict=True):
                gradient = self._gradient(name)
                momentum.lerp_(gradient, 1 - self._momentum)
                torch.lerp(gradient, momentum, self._momentum, out=update)
            for name, update in zip(names, orthogonalize(updates), strict=True):
                self._views[name].copy_(update)
        self._ranks.gather(self._all.view(-1), self._all[self._ranks.rank])
        for name, parameter in self._parameters.items():
            rows, columns = parameter.shape
            scale = max(1.0, rows / columns) ** 0.5
            parameter.mul_(1 - rate * self._weight_decay)
            _lay(parameter).add_(self._views[name], alpha=-rate * scale)

    def _gradient(self, name: str) -> torch.Tensor:
        gradient = self._parameters[name].grad
        if gradient is None:
            raise ValueError(f"{name} has no gradient")
        return _lay(gradient)

    def _lay_out(self) -> dict[str, torch.Tensor]:
        """Where each matrix's update lies in the buffer of all updates, as a view in its lying shape."""
        views = {}
        for rank, names in enumerate(self._owned):
            start = 0
            for name in names:
                parameter = self._parameters[name]
                part = self._all[rank, start : start + parameter.numel()]
                views[name] = part.view(lying(parameter.shape))
                start += parameter.numel()
        return views


def _lay(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
