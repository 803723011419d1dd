"""Cluster bootstrap: 95 % intervals of figures made of sums, with whole groups (files) resampled.

Tokens of one file depend on each other, files hardly do, so files are drawn. Equal number of groups and equal
seed give equal draws: every figure of a comparison sees the same resamples, and ratios are paired. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trimtab.spec.errors import DataError
from trimtab.spec.measures import Estimate
from trimtab.stats.student import t_975

RESAMPLES = 2000
Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]


@lru_cache(maxsize=8)
def draws(groups: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Floats:
    """How often each resample draws each group: float64 (resamples, groups), read-only."""
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)
    counts.setflags(write=False)
    return counts


def tail(groups: int) -> float:
    """Probability to cut at each end: 2.5 %, less for few groups.

    Percentile intervals of few groups are too narrow by √((n-1)/n) and by z instead of t; both are undone
    (Hesterberg 2015, "What Teachers Should Know about the Bootstrap", section 5.3).
    """
    return NormalDist().cdf(-math.sqrt(groups / (groups - 1)) * t_975(groups - 1))


def estimate(statistic: Statistic, *sums: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """`statistic` of the totals of `sums`, with its interval.

    Each of `sums` is (groups, …): what each group contributes. `statistic` is given totals with a leading
    axis of resamples and returns (resamples,). Raises `DataError` with fewer than two groups.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in sums]
    groups = len(arrays[0])
    if any(len(array) != groups for array in arrays):
        raise ValueError("the sums have different numbers of groups")
    if groups < 2:
        raise DataError(
            "an interval needs at least two groups of text.",
            where="bootstrap",
            remedy="Give more files, or cut one.",
        )
    drawn = draws(groups, seed=seed, resamples=resamples)
    value = float(statistic(*(array.sum(axis=0, keepdims=True) for array in arrays))[0])
    spread = statistic(*(np.tensordot(drawn, array, axes=1) for array in arrays))
    spread = spread[np.isfinite(spread)]
    if not math.isfinite(value) or not spread.size:
        raise DataError(
            "the figure is not finite on this text.", where="bootstrap", remedy="Is every group empty?"
        )
    cut = tail(groups)
    low, high = np.quantile(spread, [cut, 1 - cut])
    # The figure itself always belongs to its interval, also where a skewed sample would leave it out.
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """A resample of empty groups only is left out, not an error."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator != 0)


def ratio_of_sums(numerator: ArrayLike, denominator: ArrayLike, *, seed: int = 0) -> Estimate:
    """Σ numerator ÷ Σ denominator, both (groups,). A mean per token: sum per file over tokens per file."""
    return estimate(_divide, numerator, denominator, seed=seed)


def mean(values: ArrayLike, *, seed: int = 0) -> Estimate:
    """Mean of one value per group, (groups,)."""
    values = np.asarray(values, dtype=np.float64)
    return ratio_of_sums(values, np.ones_like(values), seed=seed)


def perplexity(nll: ArrayLike, tokens: ArrayLike, *, seed: int = 0) -> Estimate:
    """exp(Σ nll ÷ Σ tokens); `nll` in nats, summed per group, (groups,)."""
    return estimate(lambda n, t: np.exp(_divide(n, t)), nll, tokens, seed=seed)


def perplexity_ratio(
    nll: ArrayLike, reference_nll: ArrayLike, tokens: ArrayLike, *, seed: int = 0
) -> Estimate:
    """Perplexity ÷ the reference's, on the same tokens and the same resamples. Above 1 is worse."""
    return estimate(lambda n, r, t: np.exp(_divide(n - r, t)), nll, reference_nll, tokens, seed=seed)


def percentile(histograms: ArrayLike, edges: ArrayLike, fraction: float, *, seed: int = 0) -> Estimate:
    """The value below which `fraction` of the pooled mass lies; linear inside a bin.

    `histograms` is (groups, bins), counts per group; `edges` is (bins + 1,), ascending.
    """
    bounds = np.asarray(edges, dtype=np.float64)
    if not 0 <= fraction <= 1:
        raise ValueError(f"{fraction} is not a fraction")

    def _pooled(counts: Floats) -> Floats:
        below = np.cumsum(counts, axis=1)
        wanted = fraction * below[:, -1]
        found = np.minimum((below < wanted[:, None]).sum(axis=1), counts.shape[1] - 1)
        rows = np.arange(len(counts))
        inside = counts[rows, found]
        before = below[rows, found] - inside
        share = np.clip(np.nan_to_num(_divide(wanted - before, inside)), 0, 1)
        return np.where(below[:, -1] > 0, bounds[found] + share * (bounds[found + 1] - bounds[found]), np.nan)

    return estimate(_pooled, histograms, seed=seed)
