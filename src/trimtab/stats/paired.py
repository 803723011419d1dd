"""Speed compared fairly: rounds in which both sides ran, one after the other, and the ratio of each round.

A slow minute of the machine slows both sides of a round, so the per-round ratio is far steadier than either
speed. The A/A gate runs one thing against itself: what it shows is the noise that a claim must exceed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from trimtab.spec.errors import UsageError
from trimtab.spec.measures import Estimate
from trimtab.stats.student import t_975

CLAIM_ROUNDS = 9
# From six rounds on, the smallest and the largest of them hold the median with at least 95 %.
_EXACT_ROUNDS = 6


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an A/A gate. `quiet`: the interval holds 1 and leaves it no further than was allowed."""

    ratio: Estimate
    rounds: int
    quiet: bool


def _outside(rounds: int) -> int:
    """How many ordered values may be dropped at each end so that the rest holds the median with ≥ 95 %."""
    dropped, below = 0, 0.0
    while (below := below + math.comb(rounds, dropped) * 0.5**rounds) <= 0.025:
        dropped += 1
    return dropped - 1


def median(values: Sequence[float]) -> Estimate:
    """Median of rounds and its 95 % interval.

    From six rounds on the interval is the exact one of the sign test: order statistics, no assumption on
    the distribution (9 rounds: 2nd to 8th, 96.1 %). Below, Student's t on the logarithms, which is wide.
    Values must be positive. Raises `UsageError` with fewer than two rounds.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    rounds = len(ordered)
    if rounds < 2:
        raise UsageError(
            "an interval needs at least two rounds.", where="rounds", remedy="Ask for 9 or more."
        )
    if not (np.isfinite(ordered).all() and ordered[0] > 0):
        raise ValueError("rounds must be positive and finite")
    middle = float(np.median(ordered))
    if rounds >= _EXACT_ROUNDS:
        outside = _outside(rounds)
        return Estimate(value=middle, low=float(ordered[outside]), high=float(ordered[rounds - 1 - outside]))
    logs = np.log(ordered)
    half = t_975(rounds - 1) * float(logs.std(ddof=1)) / math.sqrt(rounds)
    centre = float(logs.mean())
    low, high = math.exp(centre - half), math.exp(centre + half)
    return Estimate(value=middle, low=min(low, middle), high=max(high, middle))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Median over rounds of numerator ÷ denominator. Item i of both comes from round i."""
    if len(numerators) != len(denominators):
        raise ValueError("both sides must have run in every round")
    return median([above / below for above, below in zip(numerators, denominators, strict=True)])


def check_claim(rounds: int) -> None:
    """Raises `UsageError` where there are too few rounds to claim anything."""
    if rounds < CLAIM_ROUNDS:
        raise UsageError(
            f"{rounds} rounds are too few for a claim.",
            where="rounds",
            remedy=f"Ask for {CLAIM_ROUNDS} or more.",
        )


def noise(first: Sequence[float], second: Sequence[float], *, allowed: float = 0.1) -> Noise:
    """A/A gate over two series of one thing, interleaved in the same rounds. `allowed` is a fraction of 1."""
    found = ratio(first, second)
    quiet = found.low <= 1 <= found.high and found.low >= 1 - allowed and found.high <= 1 + allowed
    return Noise(ratio=found, rounds=len(first), quiet=quiet)


def exceeds(claimed: Estimate, background: Estimate) -> bool:
    """Whether the whole interval of a ratio lies outside that of the A/A gate."""
    return claimed.low > background.high or claimed.high < background.low
