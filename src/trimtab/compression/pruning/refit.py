"""Closed-form least squares: the output matrix that makes up best for removed features and for earlier changes.

min_W ‖Y - Z_k W‖² + λ‖W - W₀‖² with W₀ the surviving rows, λ = damping · mean diag ZᵀZ, by one Cholesky
factorisation in float64. Damping pulls towards the surviving weights, not towards zero: where nothing was
removed, nothing changes. (The setting of SparseGPT and GPTQ, without their column-by-column rounding.)
"""

from __future__ import annotations

import msgspec
import torch
from torch import Tensor

from trimtab.compression.pruning.moments import Moments
from trimtab.spec.errors import ModelError

DAMPING = 0.01
_MAX_DAMPING = 1e3


class Refit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The new matrix (kept, H) float64, the damping that was needed, and the relative errors around it."""

    matrix: Tensor
    damping: float
    before: float
    after: float


def factorise(gram: Tensor, damping: float = DAMPING) -> tuple[Tensor, float, float]:
    """Cholesky factor of gram + λI, with λ and the damping that was used: ten times more on every failure.

    Raises `ModelError` where no damping helps, which means features that are not finite.
    """
    diagonal = float(gram.diagonal().mean())
    while damping <= _MAX_DAMPING:
        ridge = damping * diagonal or damping
        factor, failed = torch.linalg.cholesky_ex(
            gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        )
        if not int(failed) and bool(torch.isfinite(factor).all()):
            return factor, ridge, damping
        damping *= 10
    raise ModelError(
        "the model's activations are not finite on the calibration text.",
        where="refit",
        remedy="Check the model with 'trimtab evaluate'.",
    )


def refit(moments: Moments, matrix: Tensor, kept: Tensor, *, damping: float = DAMPING) -> Refit:
    """`matrix` is W₀ (all features, H), `kept` the features that stay (with the constant one, if there is a bias)."""
    start = matrix[kept].double()
    gram = moments.gram[kept][:, kept]
    factor, _, used = factorise(gram, damping)
    change = torch.cholesky_solve(moments.cross[kept] - gram @ start, factor)
    fitted = start + change
    return Refit(
        matrix=fitted,
        damping=used,
        before=moments.error(start, kept),
        after=moments.error(fitted, kept),
    )
