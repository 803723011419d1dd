"""Speed of every row, through the service, under load: which core plan suits each, then all of them side by side.

All services of a phase are up at once and take turns inside every round, so that they share the machine's mood;
the baseline takes two turns a round, which is the A/A noise that a claim has to exceed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from trimtab.bench.load import Event as LoadEvent
from trimtab.bench.load import Measured, Target, measure, speedup
from trimtab.engines.builds import ensure_build, weights_bytes
from trimtab.models.info import inspect
from trimtab.optimization.subject import Subject, core_plans
from trimtab.optimization.workspace import Event, OnEvent
from trimtab.service.launch import ServedModel, Service, start
from trimtab.spec.measures import Estimate, Speed
from trimtab.spec.recipe import Traffic
from trimtab.spec.serving import ServingConfiguration
from trimtab.stats import paired

AGAIN = "baseline, again"
CHOICE_ROUNDS = 3
CLAIM_ROUNDS = paired.CLAIM_ROUNDS
# Enough waves that a round of the fastest row lasts a few tenths of a second.
WAVES = 3


class Speeds(msgspec.Struct, frozen=True, kw_only=True):
    """By row: the chosen serving configuration and its figures; ratios at 1 and at the traffic's concurrency.

    `over_baseline[row][concurrency]` and `over_int8` are paired by rounds; `noise` is the baseline against itself.
    """

    servings: dict[str, ServingConfiguration]
    speeds: dict[str, Speed]
    over_baseline: dict[str, dict[int, Estimate]]
    over_int8: dict[str, dict[int, Estimate]]
    noise: Estimate


def load_events(stage: str, on_event: OnEvent) -> Callable[[LoadEvent], None]:
    """News of a measurement as news of a run."""

    def pass_on(event: LoadEvent) -> None:
        note = f"{event.target}: {event.tokens_per_second:,.0f} tokens/s at {event.concurrency}"
        on_event(Event(stage=stage, fraction=event.fraction, note=note))

    return pass_on


@contextmanager
def served(rows: Mapping[str, tuple[Path, ServingConfiguration]], home: Path) -> Iterator[dict[str, Service]]:
    """One service a row, all up together, each on a free loopback port."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(start([ServedModel(name="model", artifact=path, serving=how)], home=home, port=0))
            for name, (path, how) in rows.items()
        }


def _target(service: Service) -> Target:
    return Target(url=service.url, key=service.create_key("measurement"), model="model", pids=tuple(service.pids()))


def _run(
    services: Mapping[str, Service],
    traffic: Traffic,
    vocabulary: int,
    *,
    rounds: int,
    concurrencies: Sequence[int],
    again: str | None = None,
    on_event: Callable[[LoadEvent], None] | None = None,
) -> dict[str, Measured]:
    targets = {name: _target(service) for name, service in services.items()}
    if again:
        targets[AGAIN] = targets[again]
    return measure(
        targets,
        prompt_tokens=traffic.prompt_tokens,
        output_tokens=traffic.output_tokens,
        vocabulary_size=vocabulary,
        concurrencies=concurrencies,
        requests={level: max(4, WAVES * level) for level in concurrencies},
        rounds=rounds,
        on_event=on_event,
    )


def time_quickly(
    subjects: Sequence[Subject], traffic: Traffic, home: Path, on_event: Callable[[LoadEvent], None] | None = None
) -> dict[str, float]:
    """By row, its speed-up over the baseline's row under load: a few rounds, one worker a core, no claim."""
    rows = {s.name: (s.path, list(core_plans(s.serving).values())[-1]) for s in subjects}
    baseline = next(s.name for s in subjects if s.role == "baseline")
    level = traffic.concurrency
    with served(rows, home) as services:
        found = _run(
            services,
            traffic,
            inspect(subjects[0].path).vocabulary,
            rounds=CHOICE_ROUNDS,
            concurrencies=(level,),
            on_event=on_event,
        )
    return {name: speedup(found[name], found[baseline], level).value for name in rows}


def choose_plans(
    subjects: Sequence[Subject], traffic: Traffic, home: Path, on_event: Callable[[LoadEvent], None] | None = None
) -> dict[str, ServingConfiguration]:
    """By row, the core plan that served the most tokens/s at the traffic's concurrency in a few rounds."""
    rows, plans = {}, {}
    for subject in subjects:
        for label, configuration in core_plans(subject.serving).items():
            rows[f"{subject.name} {label}"] = (subject.path, configuration)
            plans.setdefault(subject.name, {})[f"{subject.name} {label}"] = configuration
    with served(rows, home) as services:
        found = _run(
            services,
            traffic,
            inspect(subjects[0].path).vocabulary,
            rounds=CHOICE_ROUNDS,
            concurrencies=(traffic.concurrency,),
            on_event=on_event,
        )
    level = traffic.concurrency
    return {
        name: choices[max(choices, key=lambda row: paired.median(found[row].rates(level)).value)]
        for name, choices in plans.items()
    }


def measure_speeds(
    subjects: Sequence[Subject],
    servings: Mapping[str, ServingConfiguration],
    traffic: Traffic,
    home: Path,
    on_event: Callable[[LoadEvent], None] | None = None,
) -> Speeds:
    """Every row at its own best plan, interleaved, enough rounds for a claim. Expects one row of role baseline."""
    baseline = next(s.name for s in subjects if s.role == "baseline")
    int8 = next((s.name for s in subjects if s.role == "int8_only"), baseline)
    levels = sorted({1, traffic.concurrency})
    rows = {s.name: (s.path, servings[s.name]) for s in subjects}
    with served(rows, home) as services:
        load_seconds = {name: service.load_seconds for name, service in services.items()}
        found = _run(
            services,
            traffic,
            inspect(subjects[0].path).vocabulary,
            rounds=CLAIM_ROUNDS,
            concurrencies=levels,
            again=baseline,
            on_event=on_event,
        )

    def ratios(against: str) -> dict[str, dict[int, Estimate]]:
        return {name: {level: speedup(found[name], found[against], level) for level in levels} for name in rows}

    return Speeds(
        servings=dict(servings),
        speeds={
            name: found[name].speed(
                load_seconds=load_seconds[name],
                weights_bytes=weights_bytes(ensure_build(path, how, home)),
            )
            for name, (path, how) in rows.items()
        },
        over_baseline=ratios(baseline),
        over_int8=ratios(int8),
        noise=speedup(found[AGAIN], found[baseline], traffic.concurrency),
    )
