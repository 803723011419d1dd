"""McNemar's exact test: are the changes of a paired yes/no outcome lopsided, or a coin's?"""

from __future__ import annotations

import math

import numpy as np


def exact(worse: int, better: int) -> float:
    """Two-sided p of `worse` right→wrong and `better` wrong→right changes, equally likely under the null.

    2 · P(X ≤ min) for X ~ Binomial(worse + better, ½), at most 1 (McNemar 1947). Assumes independent items:
    for tokens of one file it is optimistic, so read it beside the bootstrap interval.
    """
    if worse < 0 or better < 0:
        raise ValueError("counts cannot be negative")
    trials, least = worse + better, min(worse, better)
    if trials == 0:
        return 1.0
    steps = np.arange(least)
    # log C(trials, k) for k = 0…least, by C(n, k+1) = C(n, k) · (n-k) ÷ (k+1); logarithms cannot overflow.
    logs = np.concatenate(([0.0], np.cumsum(np.log(trials - steps) - np.log(steps + 1))))
    top = float(logs.max())
    total = top + math.log(float(np.exp(logs - top).sum())) - trials * math.log(2)
    return min(1.0, 2 * math.exp(total))
