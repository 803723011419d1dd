"""A profile corrected by what training measured: predicted against measured, and the planner's own error. Pure.

One factor a quantity is fitted, the median of measured ÷ predicted, so that one odd run moves nothing. Every time
in the profile is multiplied by it, which multiplies every predicted step time by it; the comparisons that were
kept follow, so that they stay comparable with what will be predicted from now on.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

import msgspec

from trimtab.spec.profile import Comparison, Profile, Quantity

# Below this many runs the median is one run's accident.
FEWEST_RUNS = 3
NOTHING_COMPARED = "Nothing that was predicted from this profile has been measured yet."


class Fitness(msgspec.Struct, frozen=True, kw_only=True):
    """Of one quantity: mean and worst |predicted ÷ measured, less 1| as it is, and the mean with each run predicted by
    a factor fitted to the others.
    """

    quantity: str
    runs: int
    factor: float
    mean_error: float
    worst_error: float
    refitted_error: float

    def __str__(self) -> str:
        return (
            f"{self.quantity}: {self.runs} runs predicted {self.mean_error:.1%} off on average, "
            f"{self.worst_error:.1%} at worst; {self.refitted_error:.1%} after --refit (× {self.factor:.3f})."
        )


def fitness(profile: Profile) -> list[Fitness]:
    """By quantity; what has never been compared is left out."""
    found = []
    quantities: tuple[Quantity, ...] = ("step_seconds", "peak_memory_bytes")
    for quantity in quantities:
        rows = _rows(profile, quantity)
        if rows:
            errors = [abs(row.predicted / row.measured - 1) for row in rows]
            found.append(
                Fitness(
                    quantity=quantity,
                    runs=len(rows),
                    factor=_factor(rows),
                    mean_error=fmean(errors),
                    worst_error=max(errors),
                    refitted_error=fmean(_left_out(rows)),
                )
            )
    return found


def refitted(profile: Profile) -> Profile:
    """The profile with its times and its memory corrected; itself where there is too little to go by."""
    factors = {found.quantity: found.factor for found in fitness(profile) if found.runs >= FEWEST_RUNS}
    slower = factors.get("step_seconds", 1.0)
    larger = factors.get("peak_memory_bytes", 1.0)
    change = msgspec.structs.replace
    return change(
        profile,
        gemm=tuple(change(sample, seconds=sample.seconds * slower) for sample in profile.gemm),
        collectives=tuple(
            change(
                rate,
                latency_seconds=rate.latency_seconds * slower,
                bytes_per_second=rate.bytes_per_second / slower,
            )
            for rate in profile.collectives
        ),
        memory_bytes_per_second=profile.memory_bytes_per_second / slower,
        launch_seconds=profile.launch_seconds * slower,
        step_seconds=profile.step_seconds * slower,
        steps=tuple(change(sample, seconds=sample.seconds * slower) for sample in profile.steps),
        memory_factor=profile.memory_factor * larger,
        comparisons=tuple(
            change(row, predicted=_corrected(row, profile, factors.get(row.quantity, 1.0)))
            for row in profile.comparisons
        ),
    )


def _corrected(row: Comparison, profile: Profile, factor: float) -> float:
    fixed = profile.process_bytes if row.quantity == "peak_memory_bytes" else 0
    return fixed + (row.predicted - fixed) * factor


def _rows(profile: Profile, quantity: Quantity) -> list[Comparison]:
    """Of memory, what the process holds before it does anything is measured, and no prediction."""
    fixed = profile.process_bytes if quantity == "peak_memory_bytes" else 0
    return [
        msgspec.structs.replace(row, predicted=row.predicted - fixed, measured=row.measured - fixed)
        for row in profile.comparisons
        if row.quantity == quantity and min(row.predicted, row.measured) > fixed
    ]


def _factor(rows: Sequence[Comparison]) -> float:
    return median(row.measured / row.predicted for row in rows)


def _left_out(rows: Sequence[Comparison]) -> list[float]:
    """The error of each run when the factor comes from the others; of a single run, as it is."""
    if len(rows) == 1:
        return [abs(rows[0].predicted / rows[0].measured - 1)]
    return [
        abs(row.predicted * _factor([*rows[:place], *rows[place + 1 :]]) / row.measured - 1)
        for place, row in enumerate(rows)
    ]
