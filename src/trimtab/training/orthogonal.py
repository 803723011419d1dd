"""The nearest orthogonal matrix, roughly and fast: Newton-Schulz iterations for a batch of equal shapes.

X ← a X + (b A + c A²) X with A = X Xᵀ drives all singular values towards 1. The coefficients are those of
Polar Express (Amsel et al. 2025), each step's optimal for what the one before leaves. Where a matrix is at
least twice as long as wide, the polynomial is built on the small Gram matrix and applied once, which saves
a third.
"""

from __future__ import annotations

import torch

Coefficients = tuple[tuple[float, float, float], ...]
POLAR_EXPRESS: Coefficients = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)


def orthogonalize(matrices: torch.Tensor, coefficients: Coefficients = POLAR_EXPRESS) -> torch.Tensor:
    """(n, rows, columns), rows ≤ columns → same shape, each near U Vᵀ of its U S Vᵀ. The input is
    overwritten.
    """
    # The iteration is made for singular values up to 1 and must not see one beyond, not by rounding either.
    matrices.div_(torch.linalg.matrix_norm(matrices, keepdim=True).mul_(1.01).clamp_min_(1e-7))
    if matrices.shape[-1] >= 2 * matrices.shape[-2]:
        return torch.bmm(_gram_polynomial(torch.bmm(matrices, matrices.mT), coefficients), matrices)
    other = torch.empty_like(matrices)
    for a, b, c in coefficients:
        gram = torch.bmm(matrices, matrices.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        torch.baddbmm(matrices, polynomial, matrices, beta=a, out=other)
        matrices, other = other, matrices
    return matrices


def _gram_polynomial(gram: torch.Tensor, coefficients: Coefficients) -> torch.Tensor:
    """P with P X the iterated X, from G = X Xᵀ alone: Q = a I + b G + c G², P ← Q P, G ← Q G Q. All
    commute.
    """
    product = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for step, (a, b, c) in enumerate(coefficients):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = torch.bmm(polynomial, product) if step else polynomial
        if step < len(coefficients) - 1:
            gram = torch.bmm(torch.bmm(polynomial, gram), polynomial)
    return product
