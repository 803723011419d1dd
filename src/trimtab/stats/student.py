"""The one quantile that small samples need: Student's t at 97.5 %, without SciPy."""

from __future__ import annotations

# Below five degrees of freedom the expansion is too coarse; these are the exact values.
_FEW = (12.7062, 4.3027, 3.1824, 2.7764)
_Z = 1.959963985


def t_975(degrees: int) -> float:
    """97.5 % point of Student's t. Cornish-Fisher expansion (Abramowitz & Stegun 26.7.5), within 0.2 %."""
    if degrees < 1:
        raise ValueError(f"{degrees} degrees of freedom: one at least is needed")
    if degrees <= len(_FEW):
        return _FEW[degrees - 1]
    z, n = _Z, degrees
    first = (z**3 + z) / (4 * n)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + first + second + third
