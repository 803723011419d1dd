"""Which neurons or head groups to keep, from activations on calibration text.

Two ways. *contribution*: root mean square of a unit's activation × norm of its output weights, unit by unit.
*elimination*: remove the unit whose loss the others can make up for best, update, repeat (Optimal Brain Surgeon
on whole columns, as in ZipLM, arXiv 2302.04089): it knows that the refit follows. Pure tensor code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trimtab.compression.pruning.moments import Moments
from trimtab.compression.pruning.refit import DAMPING, factorise

Importance = Literal["elimination", "contribution", "random"]
# Units that go per step of elimination: few enough to be exact in practice, so that wide layers stay affordable.
_STEPS = 128


def contribution(moments: Moments, matrix: Tensor, units: int) -> Tensor:
    """Score per unit (units,): root of Σ over its features of E[z²] · ‖w‖². `matrix` is (features, H)."""
    features = len(matrix)
    square = moments.gram.diagonal()[:features] / max(1, moments.tokens)
    return (square * matrix.double().square().sum(dim=1)).view(units, -1).sum(dim=1).sqrt()


def eliminate(moments: Moments, matrix: Tensor, units: int, keep: int) -> Tensor:
    """Indices (keep,) of the units that are left, ascending.

    With H = ZᵀZ + λI and W the least-squares solution, removing unit u raises the error by tr(Wᵤᵀ (H⁻¹ᵤᵤ)⁻¹ Wᵤ),
    and the solution for the rest follows by one block elimination. A bias feature is never removed.
    """
    size = len(matrix) // units
    start = matrix.double()
    if moments.bias:
        start = torch.cat([start, start.new_zeros(1, start.shape[1])])
    factor, _, _ = factorise(moments.gram, DAMPING)
    # One matrix [W | H⁻¹] over the features that are left: block elimination treats both alike.
    hidden = start.shape[1]
    state = torch.cat(
        [
            start + torch.cholesky_solve(moments.cross - moments.gram @ start, factor),
            torch.cholesky_inverse(factor),
        ],
        dim=1,
    )
    left = torch.arange(units)
    step = max(1, (units - keep) // _STEPS)
    while len(left) > keep:
        rise = _rise(state[:, :hidden], state[:, hidden:], len(left), size)
        worst = torch.argsort(rise)[: min(step, len(left) - keep)]
        stays = torch.ones(len(left), dtype=torch.bool)
        stays[worst] = False
        columns = torch.ones(len(state), dtype=torch.bool)
        columns[: len(left) * size] = stays.repeat_interleave(size)
        out = torch.cat([torch.ones(hidden, dtype=torch.bool), columns])
        gone = state[~columns]
        pivot, gone = gone[:, hidden:][:, ~columns], gone[:, out]
        state = state[columns][:, out] - state[columns][:, hidden:][:, ~columns] @ torch.linalg.solve(
            pivot, gone
        )
        left = left[stays]
    return left


def _rise(weights: Tensor, inverse: Tensor, units: int, size: int) -> Tensor:
    """How much the error rises if a unit goes and the rest makes up for it: (units,)."""
    if size == 1:
        return weights[:units].square().sum(dim=1) / inverse.diagonal()[:units]
    columns = torch.arange(units * size).view(units, size)
    own = weights[columns]
    blocks = inverse[columns[:, :, None], columns[:, None, :]]
    return (own * torch.linalg.solve(blocks, own)).sum(dim=(1, 2))


def choose(
    moments: Moments, matrix: Tensor, units: int, keep: int, *, how: Importance = "elimination", seed: int = 0
) -> Tensor:
    """Indices (keep,) of the units to keep, ascending. Unit u owns features u · size … (u + 1) · size - 1."""
    if keep == units:
        return torch.arange(units)
    if how == "elimination":
        return eliminate(moments, matrix, units, keep)
    if how == "contribution":
        scores = contribution(moments, matrix, units)
    else:
        scores = torch.rand(units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.sort(torch.topk(scores, keep).indices).values
