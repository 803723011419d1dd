"""A service of workers, step by step, under random arrivals: where percentiles come from. Pure and seeded.

Each worker does what ours do: between steps it takes requests in order while there is room, gives every running
sequence a token, and fills what is left of the step's token budget with prompts. A request goes to the worker
that owes the fewest tokens, which at equal lengths is the one with the fewest requests. Means agree with
`queueing` (a test holds them together); percentiles have no formula.
"""

from __future__ import annotations

import heapq
import random
from collections import deque

import msgspec
import numpy as np

from trimtab.planning.serving.engine_steps import EngineSteps
from trimtab.planning.serving.traffic import Traffic

# So many requests are followed; the first tenth only fills the service.
MOST_REQUESTS, FEWEST_REQUESTS, MOST_TOKENS = 4000, 200, 80_000
WARM_UP = 0.1
# More workers than these behave like these, each with its share of the traffic.
MOST_WORKERS = 8
# A client that is refused comes back after as long as the service asks for at least (Retry-After).
RETRY_SECONDS = 1.0


class Batching(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one worker, as in its serving configuration."""

    max_batch: int
    max_batch_tokens: int
    max_queue: int


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests saw. Seconds; rates count output tokens and requests per second of the whole service."""

    tokens_per_second: float
    requests_per_second: float
    refused: float
    running: float
    ttft_p50: float
    ttft_p95: float
    tpot_p50: float
    tpot_p95: float
    latency_p50: float
    latency_p95: float


class _Request:
    __slots__ = ("arrived", "ended", "first", "left")

    def __init__(self, arrived: float, prompt_tokens: int) -> None:
        self.arrived, self.left = arrived, prompt_tokens
        self.first = self.ended = 0.0


class _Worker:
    """One engine between steps. `held` counts all that it has not finished, `decoding` those that put out tokens."""

    __slots__ = (
        "_batching",
        "_context",
        "_ends",
        "_output",
        "_prompt",
        "_shape",
        "_step",
        "_steps",
        "_table",
        "_taken",
    )
    __slots__ += ("busy_seconds", "decoding", "held", "ready", "taking", "waiting")

    def __init__(self, steps: EngineSteps, batching: Batching, traffic: Traffic) -> None:
        self._steps, self._batching = steps, batching
        self._table = steps.table(batching.max_batch)
        self._prompt, self._output = traffic.prompt_tokens, traffic.output_tokens
        self.waiting: deque[_Request] = deque()
        self.taking: deque[_Request] = deque()
        self.ready: list[_Request] = []
        # (number of the step after which it has all its tokens, tie, request)
        self._ends: list[tuple[int, int, _Request]] = []
        self._shape = (0, 0)
        self._step = self._context = self._taken = self.decoding = self.held = 0
        self.busy_seconds = 0.0

    def take(self, request: _Request) -> None:
        self.waiting.append(request)
        self.held += 1

    @property
    def idle(self) -> bool:
        return not self.held

    def begin(self, slowdown: float) -> float:
        """Plan a step; its seconds while the machine is slowed by this factor."""
        while self.waiting and self.decoding + len(self.taking) < self._batching.max_batch:
            self.taking.append(self.waiting.popleft())
        budget = max(self._batching.max_batch_tokens - self.decoding, 0)
        taken = done = 0
        while self.taking and taken < budget:
            request = self.taking[0]
            piece = min(request.left, budget - taken)
            request.left -= piece
            taken += piece
            if request.left:
                break
            self.ready.append(self.taking.popleft())
            done += 1
        steps, n = self._steps, self.decoding
        changed, self._shape = self._shape != (n, taken), (n, taken)
        seconds = slowdown * (
            steps.in_context(self._table[n], n, self._context)
            + steps.busy * (steps.prompt_seconds * taken + steps.request_seconds * done)
            + steps.change_seconds * changed
        )
        self.busy_seconds += seconds * (n + len(self.taking) + len(self.ready))
        return seconds

    def end(self, now: float) -> list[_Request]:
        """The step is over: who has finished."""
        self._step += 1
        self._context += self.decoding
        finished = []
        while self._ends and self._ends[0][0] <= self._step:
            finished.append(heapq.heappop(self._ends)[2])
        self.decoding -= len(finished)
        self._context -= len(finished) * (self._prompt + self._output)
        for request in self.ready:
            request.first = now
            if self._output == 1:
                finished.append(request)
                continue
            self._taken += 1
            heapq.heappush(self._ends, (self._step + self._output - 1, self._taken, request))
            self.decoding += 1
            self._context += self._prompt + 1
        self.ready.clear()
        self.held -= len(finished)
        for request in finished:
            request.ended = now
        return finished


def replay(
    steps: EngineSteps,
    batching: Batching,
    traffic: Traffic,
    *,
    workers: int,
    seed: int = 0,
    tokens: int = MOST_TOKENS,
) -> Replayed:
    """Follow as many requests as put out `tokens`, at most some thousand. More than eight workers are followed as
    eight with their share.
    """
    followed = min(workers, MOST_WORKERS)
    share = followed / workers
    service = _Service(steps, batching, traffic, followed, share, seed)
    service.run(max(FEWEST_REQUESTS, min(MOST_REQUESTS, tokens // traffic.output_tokens)))
    return service.report(1 / share)


class _Service:
    """The event loop: arrivals and ends of steps in the order of time."""

    def __init__(
        self, steps: EngineSteps, batching: Batching, traffic: Traffic, workers: int, share: float, seed: int
    ) -> None:
        self._traffic, self._steps = traffic, steps
        self._outside = steps.beside(traffic.prompt_tokens)
        self._slowdown, self._slowdown_ends = 1.0, 0.0
        self._places = (batching.max_batch + batching.max_queue) * workers
        self._workers = [_Worker(steps, batching, traffic) for _ in range(workers)]
        self._random = random.Random(seed)  # noqa: S311 - arrivals, not secrets
        self._rate = traffic.rate * share if traffic.rate else None
        clients = max(1, round(traffic.concurrency * share)) if traffic.concurrency else 0
        # Clients begin together, as those of a load generator do.
        self._arrivals = [0.0] * clients if clients else [self._gap()]
        self._busy: list[tuple[float, int]] = []
        self.done: list[_Request] = []
        self.refused = 0
        self.now = 0.0

    def _gap(self) -> float:
        return self._random.expovariate(self._rate) if self._rate else 0.0

    def run(self, requests: int) -> None:
        while len(self.done) < requests:
            if self._arrivals and (not self._busy or self._arrivals[0] <= self._busy[0][0]):
                self._arrive(heapq.heappop(self._arrivals))
            else:
                self._end_step(*heapq.heappop(self._busy))

    def _arrive(self, moment: float) -> None:
        self.now = moment
        if self._rate:
            heapq.heappush(self._arrivals, moment + self._gap())
        if sum(worker.held for worker in self._workers) >= self._places:
            self.refused += 1
            if not self._rate:
                heapq.heappush(self._arrivals, moment + RETRY_SECONDS)
            return
        number = min(range(len(self._workers)), key=lambda i: self._workers[i].held)
        worker = self._workers[number]
        idle = worker.idle
        worker.take(_Request(moment, self._traffic.prompt_tokens))
        if idle:
            heapq.heappush(self._busy, (moment + worker.begin(self._slowdown_at(moment)), number))

    def _end_step(self, moment: float, number: int) -> None:
        self.now = moment
        worker = self._workers[number]
        for request in worker.end(moment):
            self.done.append(request)
            if not self._rate:
                heapq.heappush(self._arrivals, moment + self._outside)
        if not worker.idle:
            heapq.heappush(self._busy, (moment + worker.begin(self._slowdown_at(moment)), number))

    def _slowdown_at(self, moment: float) -> float:
        """One of those that were measured, drawn anew when the last one is over."""
        if moment >= self._slowdown_ends:
            self._slowdown = self._random.choice(self._steps.slowdowns)
            self._slowdown_ends = moment + self._slowdown * self._steps.slowdown_seconds
        return self._slowdown

    def report(self, scale: float) -> Replayed:
        """Figures without the warm-up; rates are multiplied by `scale`."""
        kept = self.done[int(WARM_UP * len(self.done)) :]
        began = kept[0].ended
        seconds = max(kept[-1].ended - began, 1e-12)
        outside, answers = self._outside, max(self._traffic.output_tokens - 1, 1)
        ttft = [request.first - request.arrived + outside for request in kept]
        tpot = [(request.ended - request.first) / answers for request in kept]
        latency = [request.ended - request.arrived + outside for request in kept]
        rate = scale * (len(kept) - 1) / seconds
        offered = len(self.done) + self.refused
        return Replayed(
            tokens_per_second=rate * self._traffic.output_tokens,
            requests_per_second=rate,
            refused=self.refused / offered,
            running=scale * sum(worker.busy_seconds for worker in self._workers) / self.now,
            ttft_p50=float(np.quantile(ttft, 0.5)),
            ttft_p95=float(np.quantile(ttft, 0.95)),
            tpot_p50=float(np.quantile(tpot, 0.5)),
            tpot_p95=float(np.quantile(tpot, 0.95)),
            latency_p50=float(np.quantile(latency, 0.5)),
            latency_p95=float(np.quantile(latency, 0.95)),
        )
