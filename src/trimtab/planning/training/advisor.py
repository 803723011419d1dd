"""The advice: every dense layout of a job, ranked by time among those that fit, with a reason for each other.

The path: `grid` proposes, `memory` refuses, `step_time` ranks. What does not fit is kept with its reason and
how much it lacks, so that the nearest feasible alternative can be named.
"""

from __future__ import annotations

import msgspec

from trimtab.planning.training.grid import families, members
from trimtab.planning.training.job import Job
from trimtab.planning.training.memory import MemoryBytes
from trimtab.planning.training.plan import Plan, Scorer, too_large
from trimtab.spec.layout import Layout

# More devices than this many times those asked for are not searched for an alternative.
_MOST_DOUBLINGS = 8


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A layout that does not fit, and how many larger micro-batches of it therefore do not either."""

    layout: Layout
    reason: str
    total_bytes: int
    larger: int = 0


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """`layouts` that fit, fastest first; `rejected`, the nearest to fitting first; `considered` in all."""

    layouts: list[Plan]
    rejected: list[Rejected]
    considered: int


def advise(job: Job) -> Advice:
    """The whole dense grid."""
    scorer = Scorer(job)
    fitting: list[Plan] = []
    rejected: list[Rejected] = []
    considered = 0
    for family in families(job):
        for sizes in members(job, family):
            considered += len(sizes)
            for index, layout in enumerate(sizes):
                memory = scorer.memory(layout)
                if memory.total > job.machine.memory_bytes:
                    rejected.append(_rejected(job, layout, memory, len(sizes) - index - 1))
                    break
                fitting.append(scorer.timed(layout, memory))
    fitting.sort(key=_rank)
    rejected.sort(key=lambda found: found.total_bytes)
    return Advice(layouts=fitting, rejected=rejected, considered=considered)


def _rank(plan: Plan) -> tuple[float, int]:
    """Fastest first; of equally fast ones the one that needs less memory."""
    memory = plan.memory_bytes.total if plan.memory_bytes else 0
    return plan.step_seconds or float("inf"), memory


def _rejected(job: Job, layout: Layout, memory: MemoryBytes, larger: int) -> Rejected:
    return Rejected(
        layout=layout, reason=too_large(job, memory) or "", total_bytes=memory.total, larger=larger
    )


def nearest(advice: Advice, layout: Layout) -> Plan | None:
    """The fitting layout that changes fewest of the keys that were asked for; of several the fastest."""

    def distance(plan: Plan) -> tuple[int, float]:
        changed = sum(
            getattr(plan.layout, name) != getattr(layout, name) for name in layout.__struct_fields__
        )
        return changed, plan.step_seconds or float("inf")

    return min(advice.layouts, key=distance, default=None)


def devices_that_fit(job: Job) -> tuple[int, Plan] | None:
    """The first doubling of the devices on which anything fits, the batch growing along if it must."""
    for doubling in range(1, _MOST_DOUBLINGS + 1):
        devices = job.devices << doubling
        batch = max(job.global_batch, devices)
        larger = msgspec.structs.replace(job, devices=devices, global_batch=batch)
        found = advise(larger).layouts
        if found:
            return devices, found[0]
    return None
