"""`plan serve`: how many workers, which bounds and how much memory a service level takes under given traffic. Pure.

The formula of `queueing` says what a worker can bear and how long its queue may be; `replay` gives the percentiles
of every number of workers that is tried; the smallest one that holds every limit is the plan.
"""

from __future__ import annotations

import math

import msgspec

from trimtab.planning.serving.engine_steps import EngineSteps, engine_steps
from trimtab.planning.serving.limits import broken, nearest_flags, over
from trimtab.planning.serving.queueing import Queue, completion_rates, queue, queue_bound
from trimtab.planning.serving.replay import Batching, Replayed, replay
from trimtab.planning.serving.traffic import Level, Traffic
from trimtab.spec.engine_profile import EngineProfile
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.units import format_bytes

MOST_WORKERS = 1024
# A service that refuses more than one request in a hundred has too few workers.
MOST_REFUSED = 0.01
# A batch twice as large as any that was measured is as far as the last slope is trusted.
BEYOND_MEASURED = 2
# What cannot be held is offered so far over what a request alone takes.
RELAXED = 1.25


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A number of workers that was tried; `reason` says which limit it breaks."""

    workers: int
    expected: Replayed
    reason: str | None


class ServingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """`serving` may be written to an artifact's `serving.json`: it is one machine's share of `workers`.

    `queue` holds the formula's means of one worker (None for a fixed number of clients), `expected` the replayed
    figures of the whole service. `cost_per_million_tokens` is in the unit of the price per machine and hour.
    """

    feasible: bool
    reasons: tuple[str, ...]
    nearest: str | None
    traffic: Traffic
    level: Level
    workers: int
    machines: int
    serving: ServingConfiguration
    queue: Queue | None
    expected: Replayed
    memory_bytes: int
    cache_bytes: int
    cost_per_million_tokens: float | None
    steps: EngineSteps
    tried: tuple[Option, ...]


def serving_plan(
    profile: EngineProfile,
    traffic: Traffic,
    level: Level | None = None,
    *,
    price_per_hour: float | None = None,
) -> ServingPlan:
    """The smallest service that holds `level`; an infeasible plan carries the best one and the nearest level.

    Raises `UsageError` for traffic that the model cannot answer.
    """
    traffic.check(profile.context_length)
    return _Search(profile, traffic, level or Level(), price_per_hour).plan()


class _Search:
    """One question. Every number of workers is replayed once."""

    def __init__(
        self, profile: EngineProfile, traffic: Traffic, level: Level, price_per_hour: float | None
    ) -> None:
        self._profile, self._traffic, self._level, self._price = profile, traffic, level, price_per_hour
        self._steps = engine_steps(profile)
        self._batch = self._batch_limit()
        self._rates = completion_rates(
            self._steps,
            prompt_tokens=traffic.prompt_tokens,
            output_tokens=traffic.output_tokens,
            max_batch=self._batch,
        )
        self._batching = Batching(
            max_batch=self._batch,
            max_batch_tokens=profile.serving.max_batch_tokens,
            max_queue=self._queue_limit(),
        )
        self._tried: dict[int, Option] = {}

    def plan(self) -> ServingPlan:
        workers = self._fewest()
        reasons = self._impossible()
        option = self._try(workers)
        if option.reason and not reasons:
            reasons = (option.reason,)
        return ServingPlan(
            feasible=not reasons,
            reasons=reasons,
            nearest=self._nearest() if reasons else None,
            traffic=self._traffic,
            level=self._level,
            workers=workers,
            machines=self._machines(workers),
            serving=self._serving(workers),
            queue=self._queue(workers),
            expected=option.expected,
            memory_bytes=self._memory(workers),
            cache_bytes=self._cache_bytes(),
            cost_per_million_tokens=self._cost(workers, option.expected),
            steps=self._steps,
            tried=tuple(self._tried[key] for key in sorted(self._tried)),
        )

    def _fewest(self) -> int:
        """The smallest number of workers that holds the level, found by doubling and halving."""
        if self._impossible():
            return self._least()
        low, high = self._least() - 1, self._least()
        while self._try(high).reason:
            if high >= self._most():
                return high
            low, high = high, min(2 * high, self._most())
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._try(middle).reason else (low, middle)
        return high

    def _least(self) -> int:
        """Fewer workers than this cannot bear the rate, whatever the percentiles."""
        if self._traffic.rate is None:
            return 1
        return min(MOST_WORKERS, max(1, math.ceil(self._traffic.rate / max(self._rates))))

    def _most(self) -> int:
        """More workers than clients would idle."""
        return min(MOST_WORKERS, self._traffic.concurrency or MOST_WORKERS)

    def _try(self, workers: int) -> Option:
        if workers not in self._tried:
            expected = replay(self._steps, self._batching, self._traffic, workers=workers)
            self._tried[workers] = Option(
                workers=workers, expected=expected, reason=self._broken(workers, expected)
            )
        return self._tried[workers]

    def _broken(self, workers: int, expected: Replayed) -> str | None:
        if expected.refused > MOST_REFUSED:
            return f"{expected.refused:.0%} of the requests would be refused."
        return broken(self._level, expected, self._memory(workers))

    def _first_token(self) -> float:
        """Time to first token of a request that finds the service empty."""
        chunks = math.ceil(self._traffic.prompt_tokens / self._profile.serving.max_batch_tokens)
        steps = self._steps
        return steps.outside_seconds + steps.first_seconds(self._traffic.prompt_tokens, chunks)

    def _step(self, running: int) -> float:
        context = self._traffic.prompt_tokens + self._traffic.output_tokens / 2
        return self._steps.in_context(self._steps.alone(running), running, running * context)

    def _impossible(self) -> tuple[str, ...]:
        """Limits that not even a request alone on its machine holds, or the fewest workers."""
        level, reasons = self._level, []
        if level.ttft_p95 is not None and self._first_token() > level.ttft_p95:
            reasons.append(
                over("time to first token of a request alone", self._first_token(), level.ttft_p95)
            )
        if level.tpot_p95 is not None and self._step(1) > level.tpot_p95:
            reasons.append(over("time per output token of a request alone", self._step(1), level.tpot_p95))
        least = self._memory(self._least())
        if level.memory_bytes is not None and least > level.memory_bytes:
            reasons.append(
                f"memory of a machine: {format_bytes(least)} is over {format_bytes(level.memory_bytes)}."
            )
        return tuple(reasons)

    def _nearest(self) -> str:
        """A level that this engine does hold, as flags: what cannot be is given a quarter over its floor."""
        level = self._level
        relaxed = Level(
            ttft_p95=level.ttft_p95 and max(level.ttft_p95, RELAXED * self._first_token()),
            tpot_p95=level.tpot_p95 and max(level.tpot_p95, RELAXED * self._step(1)),
        )
        search = _Search(self._profile, self._traffic, relaxed, None)
        workers = search._fewest()
        found = search._try(workers).expected
        flags = nearest_flags(level, found, search._memory(workers))
        if self._traffic.rate is not None and found.refused > MOST_REFUSED:
            flags.append(f"--rate {0.9 * workers * max(search._rates):.3g}")
        return f"{' '.join(flags)} can be had with {_workers(workers)}."

    def _batch_limit(self) -> int:
        """The largest batch whose step holds the limit per token, as far as steps were measured."""
        most = min(self._profile.serving.max_batch, BEYOND_MEASURED * self._steps.running[-1])
        limit = self._level.tpot_p95
        if limit is None:
            return most
        return max((n for n in range(1, most + 1) if self._step(n) <= limit), default=1)

    def _queue_limit(self) -> int:
        proven, limit = self._profile.serving.max_queue, self._level.ttft_p95
        if limit is None:
            return proven
        return min(proven, queue_bound(self._rates, seconds=max(limit - self._first_token(), 0.0)))

    def _queue(self, workers: int) -> Queue | None:
        if self._traffic.rate is None:
            return None
        places = self._batching.max_batch + self._batching.max_queue
        return queue(self._rates, rate=self._traffic.rate / workers, places=places)

    def _machines(self, workers: int) -> int:
        """Machines of the profile's kind, each with as many workers as were measured side by side."""
        return math.ceil(workers / self._profile.serving.replicas)

    def _on_one_machine(self, workers: int) -> int:
        return min(workers, self._profile.serving.replicas)

    def _cache_bytes(self) -> int:
        """KV cache of a full batch of one worker."""
        block = self._profile.cache_block_tokens
        tokens = self._traffic.prompt_tokens + self._traffic.output_tokens
        return math.ceil(self._batch * math.ceil(tokens / block) * block * self._profile.cache_token_bytes)

    def _memory(self, workers: int) -> int:
        """Peak of one machine: as measured, and what the cache takes beyond its measured bound."""
        profile, here = self._profile, self._on_one_machine(workers)
        beyond = max(0, self._cache_bytes() - profile.serving.cache_bytes)
        return math.ceil(profile.memory_bytes * here / profile.serving.replicas) + here * beyond

    def _serving(self, workers: int) -> ServingConfiguration:
        proven, here = self._profile.serving, self._on_one_machine(workers)
        return msgspec.structs.replace(
            proven,
            replicas=here,
            cores=proven.cores[:here],
            max_batch=self._batching.max_batch,
            max_queue=self._batching.max_queue,
            cache_bytes=max(proven.cache_bytes, self._cache_bytes()),
        )

    def _cost(self, workers: int, expected: Replayed) -> float | None:
        if self._price is None:
            return None
        return self._price * self._machines(workers) / (expected.tokens_per_second * 3600) * 1e6


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"
