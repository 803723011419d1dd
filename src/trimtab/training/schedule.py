"""The learning rate over a run, as a pure function: warm up, hold, decay linearly to zero (WSD).

Source: Hägele et al. 2024, "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations".
"""

from __future__ import annotations


def rate_factor(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """What to multiply the peak rate with at `step` of `steps` (0 ≤ step < steps), in (0, 1].

    `warmup` and `decay` are the fractions of the steps at either end; the smaller factor holds.
    """
    rising = max(1, round(warmup * steps))
    falling = max(1, round(decay * steps))
    return min(1.0, (step + 1) / rising, (steps - step) / falling)
