"""A worker as a queue: how many requests it holds, how long they stay, how many it must refuse. Pure.

A request needs `P` prompt tokens taken in and `O` tokens put out. While n requests run, a step gives each of them
one token in s(n) seconds, and each takes the engine for b (q P + r) seconds besides, so requests end at

    mu(n) = 1 / (O (s(n) + d f(n)) / n + b (q P + r))      for n <= B, and mu(B) beyond (the rest waits),

where f(n) = 1 - exp(-3 n / O) is the share of steps of another shape than the last one: each of the n that come and
go in O steps changes it three times (it comes, begins to answer, ends), at moments of its own. This is a
processor-sharing queue whose rate depends on how many share it (on a shared machine the time is multiplied by its
mean slowdown). With Poisson arrivals at rate l and at most K requests inside, the share of time with n inside is

    pi(n) = pi(0) * product over k = 1..n of  l / mu(k),      sum of pi(0..K) = 1.

Up to B this holds for any distribution of lengths with the same mean (insensitivity of processor sharing: Kelly,
Reversibility and Stochastic Networks, 1979, section 3.3; Cohen, Acta Informatica 12, 1979). Beyond B, first come
first served, it is exact for exponential lengths and cautious for fixed ones. Little's law gives the mean stay.
"""

from __future__ import annotations

import math

import msgspec

from trimtab.planning.serving.engine_steps import CHANGES, EngineSteps

LEAST_SECONDS = 1e-9


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """Means of one worker. Seconds, requests, requests per second; shares are fractions of 1."""

    offered: float
    capacity: float
    utilisation: float
    running: float
    waiting: float
    refused: float
    seconds_inside: float
    seconds_waiting: float


def completion_rates(
    steps: EngineSteps, *, prompt_tokens: int, output_tokens: int, max_batch: int
) -> tuple[float, ...]:
    """mu(1) … mu(max_batch), requests per second, at these lengths."""
    table = steps.table(max_batch)
    # The mean context of a running sequence: all of its prompt and half of its answer.
    context = prompt_tokens + output_tokens / 2
    once, slowdown = steps.busy * steps.once(prompt_tokens), steps.mean_slowdown

    def seconds(n: int) -> float:
        changed = 1 - math.exp(-CHANGES * n / output_tokens)
        step = steps.in_context(table[n], n, n * context) + steps.change_seconds * changed
        # A model so small that nothing was measured of it still takes a while.
        return max(slowdown * (output_tokens * step / n + once), LEAST_SECONDS)

    return tuple(1 / seconds(n) for n in range(1, max_batch + 1))


def queue(rates: tuple[float, ...], *, rate: float, places: int) -> Queue:
    """The stationary queue of one worker at `rate` arrivals per second with `places` requests at most inside.

    `rates[n - 1]` is mu(n); `places` is at least `len(rates)`.
    """
    batch = len(rates)
    logs = [0.0]
    for n in range(1, places + 1):
        logs.append(logs[-1] + math.log(rate / rates[min(n, batch) - 1]))
    top = max(logs)
    weights = [math.exp(value - top) for value in logs]
    total = sum(weights)
    shares = [weight / total for weight in weights]
    inside = sum(n * share for n, share in enumerate(shares))
    running = sum(min(n, batch) * share for n, share in enumerate(shares))
    refused = shares[-1]
    accepted = rate * (1 - refused)
    return Queue(
        offered=rate,
        capacity=max(rates),
        utilisation=1 - shares[0],
        running=running,
        waiting=inside - running,
        refused=refused,
        seconds_inside=inside / accepted,
        seconds_waiting=(inside - running) / accepted,
    )


def queue_bound(rates: tuple[float, ...], *, seconds: float) -> int:
    """How many may wait so that the last of them still starts within `seconds`: a full worker ends mu(B) a second."""
    return max(1, math.floor(seconds * rates[-1]))
