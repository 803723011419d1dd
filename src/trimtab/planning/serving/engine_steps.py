"""How long a step of an engine takes, from its measured profile. Pure.

A step advances `n` sequences by one token and takes in some prompt tokens:

    t(n, c, p) = s(n) + k (c - n c0) + q p

s is interpolated between the measured levels, c are the tokens of context of those n sequences, c0 the context of
one at which s was measured, p prompt tokens. k and q are fitted by least squares, k through the origin. On a shared
machine all of it is multiplied by a slowdown that changes from wave to wave, as it did while the profile was measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from statistics import median

import msgspec

from trimtab.spec.engine_profile import EngineProfile, Wave
from trimtab.spec.errors import UsageError


class EngineSteps(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds[i]` is s(`running[i]`), ascending. `outside_seconds` is spent once a request, outside of steps:
    parsing, the hop to the worker, the first event's way back. A slowdown of `slowdowns` lasts `slowdown_seconds`.
    """

    running: tuple[int, ...]
    seconds: tuple[float, ...]
    context_tokens: float
    context_seconds: float
    prompt_seconds: float
    outside_seconds: float
    slowdowns: tuple[float, ...] = (1.0,)
    slowdown_seconds: float = 1.0

    @property
    def mean_slowdown(self) -> float:
        return sum(self.slowdowns) / len(self.slowdowns)

    def alone(self, running: float) -> float:
        """s(n) at the reference context; beyond the largest level its last slope goes on."""
        levels, times = self.running, self.seconds
        if len(levels) == 1:
            return times[0]
        place = min(max(bisect_left(levels, running), 1), len(levels) - 1)
        low, high = levels[place - 1], levels[place]
        slope = (times[place] - times[place - 1]) / (high - low)
        return max(times[place - 1] + slope * (max(running, levels[0]) - low), times[0])

    def in_context(self, alone: float, running: int, context_tokens: float) -> float:
        """s(n), given as `alone`, for sequences that hold `context_tokens` together; never under half of it."""
        extra = self.context_seconds * (context_tokens - running * self.context_tokens)
        return max(alone + extra, alone / 2)

    def table(self, most: int) -> tuple[float, ...]:
        """s(0), s(1) … s(most), for loops that ask often; s(0) = s(1), the cost of a step with prompts only."""
        return tuple(self.alone(max(n, 1)) for n in range(most + 1))


def engine_steps(profile: EngineProfile) -> EngineSteps:
    """Raises `UsageError` for a profile with too few waves to tell prompt from output."""
    shortest = min((wave.prompt_tokens for wave in profile.waves), default=0)
    levels = sorted((w for w in profile.waves if w.prompt_tokens == shortest), key=lambda wave: wave.running)
    single = [wave for wave in profile.waves if wave.running == 1]
    if not levels or levels[0].running != 1 or len({wave.prompt_tokens for wave in single}) < 2:
        raise UsageError(
            "the profile lacks single requests of two prompt lengths.",
            where=profile.name,
            remedy="Measure it again with --measure.",
        )
    prompt_seconds = max(_slope([(w.prompt_tokens, w.ttft) for w in single]), 1e-9)
    first = levels[0]
    return EngineSteps(
        running=tuple(wave.running for wave in levels),
        seconds=_ascending([wave.tpot for wave in levels]),
        context_tokens=shortest + first.output_tokens / 2,
        context_seconds=_context_seconds(levels, profile.waves),
        prompt_seconds=prompt_seconds,
        outside_seconds=max(first.ttft - first.tpot - prompt_seconds * shortest, 0.0),
        slowdowns=profile.slowdowns or (1.0,),
        slowdown_seconds=median(wave.tpot * wave.output_tokens for wave in profile.waves),
    )


def _ascending(times: list[float]) -> tuple[float, ...]:
    """More sequences never take less time: the nearest ascending figures (isotonic least squares, by pooling)."""
    pools: list[tuple[float, int]] = []
    for time in times:
        pools.append((time, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (low, few), (high, many) = pools.pop(), pools.pop()
            pools.append(((low * few + high * many) / (few + many), few + many))
    return tuple(mean for mean, count in pools for _ in range(count))


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """Least squares with an intercept."""
    count = len(points)
    x_mean, y_mean = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - x_mean) ** 2 for x, _ in points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread


def _context_seconds(levels: Sequence[Wave], waves: Sequence[Wave]) -> float:
    """Seconds a step grows by per token of context: pairs of waves that differ in their prompts alone."""
    base = {wave.running: wave for wave in levels}
    pairs = [
        (
            wave.running * (wave.prompt_tokens - base[wave.running].prompt_tokens),
            wave.tpot - base[wave.running].tpot,
        )
        for wave in waves
        if wave.running in base and wave.prompt_tokens > base[wave.running].prompt_tokens
    ]
    squares = sum(x * x for x, _ in pairs)
    return max(sum(x * y for x, y in pairs) / squares, 0.0) if squares else 0.0
