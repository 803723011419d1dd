"""How long a step of an engine takes, from its measured profile. Pure.

A step advances `n` sequences by one token and takes in some prompt tokens:

    t(n, c, p, a) = s(n) + k (c - n c0) + b (q p + r a) + d where the step is of another shape than the last one

s is interpolated between the measured levels, c are the tokens of context of those n sequences, c0 the context of
one at which s was measured, p prompt tokens, a requests whose prompts are done. k, q and r are fitted by least
squares, k through the origin. r is what a request takes besides its tokens, b the share of q and r in which its
worker's other requests stand still: all of it where steps need the cores that requests are read on. d is what an engine
takes to make itself ready for another number of sequences and prompt tokens: a request that comes, begins to answer or
ends changes the shape of steps, and waves of equal requests hide that. On a shared machine all of it is multiplied by
a slowdown that changes from wave to wave, as it did while the profile was measured.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from statistics import median

import msgspec

from trimtab.spec.engine_profile import EngineProfile, Wave
from trimtab.spec.errors import UsageError

# A request changes the shape of steps when it comes, when it begins to answer and when it ends.
CHANGES = 3


class EngineSteps(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds[i]` is s(`running[i]`), ascending. `request_seconds` is r, `busy` b, `change_seconds` d.
    `outside_seconds` is spent once a request, outside of steps: parsing, the hop to the worker, the first event's way
    back. A slowdown of `slowdowns` lasts `slowdown_seconds`.
    """

    running: tuple[int, ...]
    seconds: tuple[float, ...]
    context_tokens: float
    context_seconds: float
    prompt_seconds: float
    request_seconds: float = 0.0
    busy: float = 1.0
    change_seconds: float = 0.0
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

    def once(self, prompt_tokens: float) -> float:
        """What a request takes besides the steps of its answer: itself and its prompt."""
        return self.request_seconds + self.prompt_seconds * prompt_tokens

    def first_seconds(self, prompt_tokens: float, steps: int = 1) -> float:
        """From the first step to the first token of a request that is alone and whose prompt takes so many steps."""
        return self.once(prompt_tokens) + self.change_seconds + steps * self.alone(1)

    def beside(self, prompt_tokens: float) -> float:
        """What a request's first token waits for while its worker steps on."""
        return self.outside_seconds + (1 - self.busy) * self.once(prompt_tokens)

    def table(self, most: int) -> tuple[float, ...]:
        """s(0), s(1) … s(most), for loops that ask often; s(0) = s(1), the cost of a step with prompts only."""
        return tuple(self.alone(max(n, 1)) for n in range(most + 1))


def engine_steps(profile: EngineProfile) -> EngineSteps:
    """Raises `UsageError` for a profile with too few waves to tell prompt from output."""
    waves = [wave for wave in profile.waves if not wave.guests]
    shortest = min((wave.prompt_tokens for wave in waves), default=0)
    levels = sorted((w for w in waves if w.prompt_tokens == shortest), key=lambda wave: wave.running)
    single = [wave for wave in waves if wave.running == 1]
    if not levels or levels[0].running != 1 or len({wave.prompt_tokens for wave in single}) < 2:
        raise UsageError(
            "the profile lacks single requests of two prompt lengths.",
            where=profile.name,
            remedy="Measure it again with --measure.",
        )
    prompt_seconds = max(_slope([(w.prompt_tokens, w.ttft) for w in single]), 1e-9)
    # All of a wave wait for the requests of all.
    each = _slope([(w.running, w.ttft) for w in levels]) if len(levels) > 1 else 0.0
    first = levels[0]
    steps = EngineSteps(
        running=tuple(wave.running for wave in levels),
        seconds=_ascending([wave.tpot for wave in levels]),
        context_tokens=shortest + first.output_tokens / 2,
        context_seconds=_context_seconds(levels, waves),
        prompt_seconds=prompt_seconds,
        request_seconds=max(each - prompt_seconds * shortest, 0.0),
        outside_seconds=0.0,
        slowdowns=profile.slowdowns or (1.0,),
        slowdown_seconds=median(wave.tpot * wave.output_tokens for wave in waves),
    )
    busy, change_seconds = _guests(steps, levels, profile.waves)
    steps = msgspec.structs.replace(steps, busy=busy, change_seconds=change_seconds)
    outside = max(first.ttft - steps.first_seconds(shortest), 0.0)
    return msgspec.structs.replace(steps, outside_seconds=outside)


def _guests(steps: EngineSteps, levels: Sequence[Wave], waves: Sequence[Wave]) -> tuple[float, float]:
    """What a guest costs the others beyond its one step among them, as b and d: up to what its own first token waits
    for it is its prompt and itself, what is more are the changes of the batch. (1, 0) where there were no guests.
    """
    alone = {wave.running: wave for wave in levels}
    visits = [
        (wave.tpot - alone[wave.running].tpot) * (wave.output_tokens - 1) / wave.guests
        - (steps.alone(wave.running + 1) - steps.alone(wave.running))
        for wave in waves
        if wave.guests and wave.running in alone
    ]
    if not visits:
        return 1.0, 0.0
    visit, own = median(visits), steps.once(levels[0].prompt_tokens)
    return min(max(visit / own, 0.0), 1.0), max(visit - own, 0.0) / CHANGES


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
