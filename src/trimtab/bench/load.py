"""Measures services side by side: every round loads each in turn, so that all share what else the machine does.

The load goes through HTTP from a process of its own. The first round warms up and is thrown away; memory is
sampled in it and after each round, never while the clock runs. Knows services by URL, nothing of engines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from trimtab.bench.generator import Generator
from trimtab.bench.job import Job, Outcome, address
from trimtab.bench.memory import Peak
from trimtab.spec.errors import UsageError
from trimtab.spec.measures import Estimate, Load, Speed
from trimtab.stats import paired


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A service under load. `pids` are the processes whose memory counts (with all that they started)."""

    url: str
    key: str
    model: str
    pids: tuple[int, ...] = ()


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One load of one target. Seconds; a `ttft` and a `tpot` per request.

    `client_share` is the part of one core that the load process itself took.
    """

    tokens_per_second: float
    ttft: tuple[float, ...]
    tpot: tuple[float, ...]
    client_share: float
    client_seconds_per_event: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All of one target. Round i of two targets measured together is a pair. `memory_bytes` is peak PSS."""

    loads: tuple[Load, ...]
    rounds: dict[int, tuple[Round, ...]]
    memory_bytes: int

    def rates(self, concurrency: int) -> list[float]:
        """Output tokens/s of each round."""
        return [round_.tokens_per_second for round_ in self.rounds[concurrency]]

    def speed(self, *, load_seconds: float, weights_bytes: int) -> Speed:
        return Speed(
            load_seconds=load_seconds,
            memory_bytes=self.memory_bytes,
            weights_bytes=weights_bytes,
            loads=self.loads,
        )


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """News of a measurement: `fraction` of it is done. Round 0 is the warm-up."""

    fraction: float
    target: str
    concurrency: int
    round: int
    tokens_per_second: float


class _Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. `requests`: how many in a round, by concurrency."""

    requests: Mapping[int, int]
    prompt_tokens: int
    output_tokens: int
    vocabulary_size: int
    seed: int
    cores: tuple[int, ...]
    timeout_seconds: float


def requests_per_round(concurrencies: Sequence[int]) -> dict[int, int]:
    """Two waves of each concurrency, four requests at least: enough for a rate, short enough for turns."""
    return {concurrency: max(4, 2 * concurrency) for concurrency in concurrencies}


def speedup(ours: Measured, theirs: Measured, concurrency: int) -> Estimate:
    """Output tokens/s, ours ÷ theirs, paired by rounds."""
    return paired.ratio(ours.rates(concurrency), theirs.rates(concurrency))


class Turn(NamedTuple):
    round: int
    concurrency: int
    target: str


def schedule(targets: Sequence[str], concurrencies: Iterable[int], rounds: int) -> Iterator[Turn]:
    """Who is loaded when. Round 0 warms up; round r starts with target r mod n and goes round."""
    levels = tuple(concurrencies)
    for number in range(rounds + 1):
        first = number % len(targets)
        for concurrency in levels:
            for target in (*targets[first:], *targets[:first]):
                yield Turn(number, concurrency, target)


def _seed(traffic: _Traffic, turn: Turn) -> int:
    """A seed of its own for each load, so that no cache of prefixes ever sees a prompt twice."""
    text = f"{traffic.seed}/{turn.round}/{turn.concurrency}/{turn.target}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _job(target: Target, traffic: _Traffic, turn: Turn) -> Job:
    return Job(
        **address(target.url)._asdict(),
        model=target.model,
        key=target.key,
        concurrency=turn.concurrency,
        requests=traffic.requests[turn.concurrency],
        prompt_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        vocabulary_size=traffic.vocabulary_size,
        seed=_seed(traffic, turn),
        cores=traffic.cores,
        timeout_seconds=traffic.timeout_seconds,
    )


def _round(outcome: Outcome) -> Round:
    return Round(
        tokens_per_second=sum(outcome.tokens) / outcome.wall_seconds,
        ttft=outcome.first,
        tpot=tuple(
            rest / max(tokens - 1, 1) for rest, tokens in zip(outcome.rest, outcome.tokens, strict=True)
        ),
        client_share=outcome.cpu_seconds / outcome.wall_seconds,
        client_seconds_per_event=outcome.cpu_seconds / max(outcome.events, 1),
    )


def _load(concurrency: int, traffic: _Traffic, rounds: tuple[Round, ...]) -> Load:
    """Rates by round, latencies pooled over all requests of all rounds."""
    ttft = np.concatenate([round_.ttft for round_ in rounds])
    tpot = np.concatenate([round_.tpot for round_ in rounds])
    return Load(
        concurrency=concurrency,
        prompt_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        tokens_per_second=paired.median([round_.tokens_per_second for round_ in rounds]),
        ttft_p50=float(np.quantile(ttft, 0.5)),
        ttft_p95=float(np.quantile(ttft, 0.95)),
        tpot_p50=float(np.quantile(tpot, 0.5)),
        tpot_p95=float(np.quantile(tpot, 0.95)),
    )


def measure(
    targets: Mapping[str, Target],
    *,
    prompt_tokens: int,
    output_tokens: int,
    vocabulary_size: int,
    concurrencies: Sequence[int] = (1, 16),
    requests: Mapping[int, int] | None = None,
    rounds: int = paired.CLAIM_ROUNDS,
    seed: int = 0,
    cores: tuple[int, ...] = (),
    timeout_seconds: float = 120.0,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, Measured]:
    """Load all targets, interleaved, and return what each did.

    `requests` are those of one round, by concurrency. `cores` are those of the load process. Raises
    `UsageError` with fewer than two rounds and `EngineError` with the service's message if a request fails.
    """
    if rounds < 2:
        raise UsageError(
            "an interval needs at least two rounds.", where="rounds", remedy="Ask for 9 or more."
        )
    traffic = _Traffic(
        requests=requests or requests_per_round(concurrencies),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        vocabulary_size=vocabulary_size,
        seed=seed,
        cores=cores,
        timeout_seconds=timeout_seconds,
    )
    peaks = {name: Peak(target.pids) for name, target in targets.items()}
    seen: dict[str, dict[int, list[Round]]] = {
        name: {level: [] for level in concurrencies} for name in targets
    }
    turns = list(schedule(list(targets), concurrencies, rounds))
    done, total = 0, sum(traffic.requests[turn.concurrency] for turn in turns)
    with Generator() as generator:
        for turn in turns:
            job = _job(targets[turn.target], traffic, turn)
            found = _load_once(generator, job, peaks[turn.target], warm_up=turn.round == 0)
            if turn.round:
                seen[turn.target][turn.concurrency].append(found)
            done += job.requests
            if on_event is not None:
                rate = found.tokens_per_second
                on_event(Event(fraction=done / total, tokens_per_second=rate, **turn._asdict()))
    return {name: _measured(traffic, seen[name], peaks[name].bytes) for name in targets}


def _load_once(generator: Generator, job: Job, peak: Peak, *, warm_up: bool) -> Round:
    """Memory is watched in the warm-up; a timed load is left alone, and looked at once it is over."""
    if warm_up:
        with peak:
            return _round(generator.run(job))
    found = _round(generator.run(job))
    peak.sample()
    return found


def _measured(traffic: _Traffic, seen: dict[int, list[Round]], memory_bytes: int) -> Measured:
    rounds = {concurrency: tuple(found) for concurrency, found in seen.items()}
    return Measured(
        loads=tuple(_load(concurrency, traffic, found) for concurrency, found in rounds.items()),
        rounds=rounds,
        memory_bytes=memory_bytes,
    )


def noise(
    target: Target,
    *,
    prompt_tokens: int,
    output_tokens: int,
    vocabulary_size: int,
    concurrencies: Sequence[int] = (1, 16),
    rounds: int = paired.CLAIM_ROUNDS,
    cores: tuple[int, ...] = (),
) -> dict[int, paired.Noise]:
    """A/A gate: the target against itself under the same protocol, by concurrency."""
    paired.check_claim(rounds)
    found = measure(
        {"first": target, "second": target},
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        vocabulary_size=vocabulary_size,
        concurrencies=concurrencies,
        rounds=rounds,
        cores=cores,
    )
    first, second = found["first"], found["second"]
    return {level: paired.noise(first.rates(level), second.rates(level)) for level in concurrencies}
