"""Fit what a datasheet's rate of matrix products is worth to measured step times, and say how far it carries.

One constant is fitted, so that few rows suffice and none can be bent to: `Reached.gemm`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trimtab.planning.devices.accelerators import Accelerator, machine_of
from trimtab.planning.devices.efficiency import Reached
from trimtab.planning.training.job import Job
from trimtab.planning.training.plan import Scorer
from trimtab.spec.layout import Layout

_LOW, _HIGH, _PRECISION = 0.3, 1.2, 1e-4
_GOLDEN = (5**0.5 - 1) / 2


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One measured run. The job's machine is made anew from the datasheet for every constant that is tried."""

    job: Job
    sheet: Accelerator
    layout: Layout
    step_seconds: float


def relative_error(observation: Observation, reached: Reached) -> float:
    """Predicted over measured, less 1."""
    machine = machine_of(
        observation.sheet,
        name=observation.job.machine.name,
        per_node=observation.job.machine.per_node,
        reached=reached,
    )
    plan = Scorer(msgspec.structs.replace(observation.job, machine=machine)).plan(observation.layout)
    if plan.step_seconds is None:
        raise ValueError(f"{observation.layout}: {plan.reason}")
    return plan.step_seconds / observation.step_seconds - 1


def fit(observations: Sequence[Observation]) -> Reached:
    """The least sum of squared relative errors, by golden-section search: it has one minimum."""

    def loss(gemm: float) -> float:
        reached = Reached(gemm=gemm)
        return sum(relative_error(observation, reached) ** 2 for observation in observations)

    low, high = _LOW, _HIGH
    while high - low > _PRECISION:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return Reached(gemm=round((low + high) / 2, 3))


def leave_one_out(observations: Sequence[Observation]) -> list[float]:
    """The error of each row when the others alone are fitted."""
    return [
        relative_error(row, fit([*observations[:index], *observations[index + 1 :]]))
        for index, row in enumerate(observations)
    ]
