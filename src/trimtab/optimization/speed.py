"""Speed of every row, through the service, under load: which core plan suits each, then all of them side by side.

All services of a phase are up at once and take turns inside every round, so that they share what else the machine does;
the baseline takes two turns a round, which is the A/A noise that a claim has to exceed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from trimtab.bench.load import Event as LoadEvent
from trimtab.bench.load import Measured, Target, measure, speedup
from trimtab.engines.builds import ensure_build, ensure_builds, weights_bytes
from trimtab.models.info import inspect
from trimtab.optimization.subject import Subject, core_plans
from trimtab.security.keys import KeyRing
from trimtab.service.launch import ServedModel, start
from trimtab.spec.measures import Estimate, Speed
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Traffic
from trimtab.spec.serving import ServingConfiguration
from trimtab.stats import paired

MODEL, AGAIN = "model", "baseline, again"
CHOICE_ROUNDS, CLAIM_ROUNDS = 2, paired.CLAIM_ROUNDS
# Enough waves that a round of the fastest row lasts a few tenths of a second.
WAVES, FEWEST = 2, 3
OnLoad = Callable[[LoadEvent], None]
Rows = Mapping[str, tuple[Path | None, ServingConfiguration]]


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """By row: the chosen serving configuration and its figures; ratios at 1 and at the traffic's concurrency.

    `over_baseline[row][concurrency]` and `over_int8` are paired by rounds; `noise` is the baseline against itself.
    """

    servings: dict[str, ServingConfiguration]
    speeds: dict[str, Speed]
    over_baseline: dict[str, dict[int, Estimate]]
    over_int8: dict[str, dict[int, Estimate]]
    noise: Estimate


def load_events(stage: str, on_event: OnEvent) -> OnLoad:
    """News of a measurement as news of a run."""

    def pass_on(event: LoadEvent) -> None:
        note = f"{event.target}: {event.tokens_per_second:,.0f} tokens/s at {event.concurrency}"
        on_event(Event(stage=stage, fraction=event.fraction, note=note))

    return pass_on


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A service that is up. `load_seconds` is from its start to its readiness."""

    target: Target
    load_seconds: float


@contextmanager
def served(rows: Rows, home: Path) -> Iterator[dict[str, Running]]:
    """One service a row, each on a free loopback port, and a key that is gone afterwards."""
    ensure_builds([(path, how) for path, how in rows.values() if path is not None], home)
    keys = KeyRing(home)
    key = keys.create("measurement")
    with ExitStack() as stack:
        stack.callback(keys.revoke, key.id)
        running = {}
        for name, (path, how) in rows.items():
            began = time.monotonic()
            service = stack.enter_context(
                start([ServedModel(name=MODEL, artifact=path, serving=how)], home=home, port=0)
            )
            seconds = time.monotonic() - began
            target = Target(url=service.url, key=key.key, model=MODEL, pids=tuple(service.pids()))
            running[name] = Running(target=target, load_seconds=seconds)
        yield running


def _measure(
    running: Mapping[str, Running],
    traffic: Traffic,
    vocabulary: int,
    concurrencies: Sequence[int],
    rounds: int,
    on_load: OnLoad,
    again: str | None = None,
) -> dict[str, Measured]:
    targets = {name: one.target for name, one in running.items()}
    if again is not None:
        targets[AGAIN] = targets[again]
    return measure(
        targets,
        prompt_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        vocabulary_size=vocabulary,
        concurrencies=concurrencies,
        requests={level: max(FEWEST, WAVES * level) for level in concurrencies},
        rounds=rounds,
        on_event=on_load,
    )


def _name_of(role: str, subjects: Sequence[Subject]) -> str | None:
    return next((s.name for s in subjects if s.role == role), None)


def time_quickly(
    subjects: Sequence[Subject], traffic: Traffic, home: Path, on_load: OnLoad
) -> dict[str, float]:
    """By row, its speed-up over the first row under load: a few rounds, one worker a core, no claim."""
    rows = {s.name: (s.path, list(core_plans(s.serving).values())[-1]) for s in subjects}
    first, level = subjects[0], traffic.concurrency
    with served(rows, home) as running:
        found = _measure(running, traffic, inspect(first.path).vocabulary, (level,), CHOICE_ROUNDS, on_load)
    return {name: speedup(found[name], found[first.name], level).value for name in rows}


def choose_plans(
    subjects: Sequence[Subject], traffic: Traffic, home: Path, on_load: OnLoad
) -> dict[str, ServingConfiguration]:
    """By row, the core plan that served the most tokens/s at the traffic's concurrency in a few rounds."""
    plans = {s.name: core_plans(s.serving) for s in subjects}
    rows = {f"{s.name} {label}": (s.path, how) for s in subjects for label, how in plans[s.name].items()}
    vocabulary, level = inspect(subjects[0].path).vocabulary, traffic.concurrency
    with served(rows, home) as running:
        found = _measure(running, traffic, vocabulary, (level,), CHOICE_ROUNDS, on_load)

    def rate(name: str, label: str) -> float:
        return paired.median(found[f"{name} {label}"].rates(level)).value

    return {
        name: labelled[max(labelled, key=lambda label, name=name: rate(name, label))]
        for name, labelled in plans.items()
    }


def measure_speeds(
    subjects: Sequence[Subject],
    servings: Mapping[str, ServingConfiguration],
    traffic: Traffic,
    home: Path,
    on_load: OnLoad,
) -> Speeds:
    """Every row at its own best plan, interleaved, enough rounds for a claim. The first row is the baseline."""
    baseline, vocabulary = subjects[0].name, inspect(subjects[0].path).vocabulary
    int8 = _name_of("int8_only", subjects) or baseline
    levels = sorted({1, traffic.concurrency})
    rows = {s.name: (s.path, servings[s.name]) for s in subjects}
    with served(rows, home) as running:
        found = _measure(running, traffic, vocabulary, levels, CLAIM_ROUNDS, on_load, again=baseline)

    def ratios(against: str) -> dict[str, dict[int, Estimate]]:
        return {name: {at: speedup(found[name], found[against], at) for at in levels} for name in rows}

    def figures(name: str) -> Speed:
        build = ensure_build(*rows[name], home)
        return found[name].speed(load_seconds=running[name].load_seconds, weights_bytes=weights_bytes(build))

    return Speeds(
        servings=dict(servings),
        speeds={name: figures(name) for name in rows},
        over_baseline=ratios(baseline),
        over_int8=ratios(int8),
        noise=speedup(found[AGAIN], found[baseline], traffic.concurrency),
    )
