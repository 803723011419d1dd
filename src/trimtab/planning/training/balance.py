"""Where to cut a chain of layers into stages, as pure functions of the layers' costs: training cuts by them, and
planning says beforehand what each rank will have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise

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
    sums = list(accumulate(costs, initial=0.0))
    count = len(costs)
    # smallest[i]: the smallest largest sum when the first i layers fill the stages so far; begins: the last one's.
    smallest = [0.0] + [float("inf")] * count
    begins: list[list[int]] = []
    for stage in range(1, stages + 1):
        before, smallest, begin = smallest, [float("inf")] * (count + 1), [0] * (count + 1)
        for i in range(stage, count + 1):
            begin[i] = _last_begin(before, sums, range(stage - 1, i), i)
            smallest[i] = max(before[begin[i]], sums[i] - sums[begin[i]])
        begins.append(begin)
    cuts = [count]
    for begin in reversed(begins):
        cuts.append(begin[cuts[-1]])
    return [range(begin, end) for begin, end in pairwise(reversed(cuts))]


def _last_begin(before: list[float], sums: list[float], begins: range, end: int) -> int:
    """Where the stage that ends at `end` best begins, the earliest of several.

    The later, the more the stages before it have to take and the less is left for it: the best is where they meet.
    """
    meet = bisect_left(begins, True, key=lambda j: before[j] >= sums[end] - sums[j])
    choices = [begins[place] for place in (meet - 1, meet) if 0 <= place < len(begins)]
    return min(choices, key=lambda j: max(before[j], sums[end] - sums[j]))


def decoder_cut(layers: Sequence[float], head: float, stages: int) -> list[range]:
    """A decoder by the sizes of its layers: the embedding, which computes nothing, goes with the first layer, norm and
    head are one more at the end (index `len(layers)`). Raises as `cut` does.
    """
    return cut([*layers, head], stages)


def stages_of_rank(stages: int, rank: int, pipeline: int) -> range:
    """Stages go round the ranks, so that each rank's virtual stages are spread over the depth."""
    return range(rank, stages, pipeline)
