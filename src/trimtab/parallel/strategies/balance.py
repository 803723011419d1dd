"""Where to cut a chain of layers into stages, as pure functions of the layers' costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from trimtab.spec.errors import UsageError


def cut(costs: Sequence[float], stages: int) -> list[range]:
    """Contiguous ranges, one a stage and none empty, whose largest sum is as small as can be.

    Raises `UsageError` if there are fewer layers than stages.
    """
    if len(costs) < stages:
        raise UsageError(
            f"{len(costs)} layers cannot fill {stages} stages.",
            where="parallel.pipeline",
            remedy=f"Use at most {len(costs)} stages (pipeline × virtual).",
        )
    # best[k][i]: smallest largest sum when the first i layers fill k stages, and where the last stage begins.
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    count = len(costs)
    best = [[(0.0 if i == 0 else float("inf"), 0) for i in range(count + 1)]]
    for stage in range(1, stages + 1):
        before = best[-1]
        best.append([(float("inf"), 0)] * stage)
        for i in range(stage, count + 1):
            choices = ((max(before[j][0], sums[i] - sums[j]), j) for j in range(stage - 1, i))
            best[-1].append(min(choices))
    cuts = [count]
    for stage in range(stages, 0, -1):
        cuts.append(best[stage][cuts[-1]][1])
    cuts.reverse()
    return [range(begin, end) for begin, end in pairwise(cuts)]
