"""Does `plan serve` predict what happens? A profile is measured, loads it has not seen are predicted, then run.

    python benchmarks/planning_serve.py MODEL… [--rounds N] [--output FILE]

MODEL is what `trimtab serve` takes: a name of the store, a ./FOLDER or `mock`. Three loads of random arrivals, at
lengths and rates that no wave of the profile had, and one of clients in a closed loop go through the real service.
Rates are set from a first, short profile; then every round plays the profile's waves and all loads in turn, so
that both see the machine slowed alike, and what is predicted comes from the waves of those rounds alone. The
arrivals that are predicted and those that are measured have different seeds. Writes
`benchmarks/results/planning_serve.json` with machine and date; exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from trimtab.bench.generator import Generator
from trimtab.bench.job import Job, Outcome, address
from trimtab.bench.load import Target
from trimtab.bench.waves import WaveRounds, sizes
from trimtab.cli.console import say, table
from trimtab.models.info import inspect
from trimtab.models.served import Overrides, served_model
from trimtab.optimization.profiling import measure_profiles
from trimtab.optimization.speed import served
from trimtab.planning.serving.engine_steps import engine_steps
from trimtab.planning.serving.queueing import completion_rates
from trimtab.planning.serving.replay import Batching, Replayed, replay
from trimtab.planning.serving.traffic import Traffic
from trimtab.service.launch import ServedModel
from trimtab.spec.clock import now
from trimtab.spec.engine_profile import EngineProfile
from trimtab.spec.hardware import Hardware, this_machine
from trimtab.store.home import home

RESULTS = Path(__file__).resolve().parent / "results" / "planning_serve.json"
# (share of the predicted capacity, prompt tokens, output tokens); the profile's waves have 16 or 512 in, 48 out.
LOADS = ((0.3, 64, 64), (0.55, 32, 96), (0.8, 96, 32))
CLIENTS, CLIENT_LENGTHS = 12, (40, 80)
# Long enough for a queue to settle, and for its end, when nobody comes any more, not to count.
LEAST_REQUESTS, SECONDS = 120, 10.0
THROUGHPUT_BOUND, P95_BOUND = 0.20, 0.30


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    tokens_per_second: float
    ttft_p95: float
    tpot_p95: float
    latency_p95: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One load. `errors` are predicted ÷ measured, less 1; `rounds` the measured figures of each round alone."""

    model: str
    traffic: Traffic
    share_of_capacity: float | None
    predicted: Figures
    measured: Figures
    errors: Figures
    rounds: tuple[Figures, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    hardware: Hardware
    created: str
    rows: tuple[Row, ...]
    profiles: dict[str, EngineProfile]


def loads(profile: EngineProfile) -> list[tuple[float | None, Traffic]]:
    steps, serving = engine_steps(profile), profile.serving
    found: list[tuple[float | None, Traffic]] = []
    for share, prompt, output in LOADS:
        rates = completion_rates(
            steps, prompt_tokens=prompt, output_tokens=output, max_batch=serving.max_batch
        )
        rate = share * max(rates) * serving.replicas
        found.append((share, Traffic(prompt_tokens=prompt, output_tokens=output, rate=rate)))
    prompt, output = CLIENT_LENGTHS
    return [*found, (None, Traffic(prompt_tokens=prompt, output_tokens=output, concurrency=CLIENTS))]


def predict(profile: EngineProfile, traffic: Traffic) -> Replayed:
    serving = profile.serving
    batching = Batching(
        max_batch=serving.max_batch, max_batch_tokens=serving.max_batch_tokens, max_queue=serving.max_queue
    )
    return replay(engine_steps(profile), batching, traffic, workers=serving.replicas)


def run(generator: Generator, target: Target, traffic: Traffic, vocabulary: int, seed: int) -> Outcome:
    return generator.run(
        Job(
            **address(target.url)._asdict(),
            model=target.model,
            key=target.key,
            concurrency=traffic.concurrency or 128,
            requests=max(LEAST_REQUESTS, round(SECONDS * (traffic.rate or 0))),
            prompt_tokens=traffic.prompt_tokens,
            output_tokens=traffic.output_tokens,
            vocabulary_size=vocabulary,
            seed=seed,
            rate=traffic.rate,
        )
    )


def figures(outcomes: list[Outcome]) -> Figures:
    first = np.concatenate([outcome.first for outcome in outcomes])
    rest = np.concatenate([outcome.rest for outcome in outcomes])
    tokens = np.concatenate([outcome.tokens for outcome in outcomes])
    return Figures(
        tokens_per_second=float(tokens.sum() / sum(outcome.wall_seconds for outcome in outcomes)),
        ttft_p95=float(np.quantile(first, 0.95)),
        tpot_p95=float(np.quantile(rest / np.maximum(tokens - 1, 1), 0.95)),
        latency_p95=float(np.quantile(first + rest, 0.95)),
    )


def compare(
    name: str, share: float | None, traffic: Traffic, expected: Replayed, outcomes: list[Outcome]
) -> Row:
    predicted = msgspec.convert(expected, Figures, from_attributes=True)
    measured = figures(outcomes)
    errors = {key: getattr(predicted, key) / getattr(measured, key) - 1 for key in Figures.__struct_fields__}
    return Row(
        model=name,
        traffic=traffic,
        share_of_capacity=share,
        predicted=predicted,
        measured=measured,
        errors=Figures(**errors),
        rounds=tuple(figures([outcome]) for outcome in outcomes),
    )


def measure(model: ServedModel, first: EngineProfile, rounds: int) -> tuple[EngineProfile, list[Row]]:
    wanted, serving = loads(first), model.serving
    vocabulary = inspect(model.artifact).vocabulary if model.artifact else 256
    outcomes: list[list[Outcome]] = [[] for _ in wanted]
    with served({model.name: (model.artifact, serving)}, home()) as running, Generator() as generator:
        target = running[model.name].target
        waves = WaveRounds(
            target,
            sizes(first.context_length, serving.max_batch),
            workers=serving.replicas,
            vocabulary_size=vocabulary,
        )
        for number in range(rounds + 1):
            waves.play(generator, warm_up=number == 0)
            for place, (_, traffic) in enumerate(wanted):
                seed = 1_000_003 * (number + 1) + place
                outcome = run(generator, target, traffic, vocabulary, seed)
                if number:  # round 0 warms up
                    outcomes[place].append(outcome)
            say(f"{model.name}: round {number} of {rounds}")
    profile = msgspec.structs.replace(
        first, waves=waves.waves(), slowdowns=waves.slowdowns(), rounds=waves.rounds
    )
    return profile, [
        compare(model.name, share, traffic, predict(profile, traffic), seen)
        for (share, traffic), seen in zip(wanted, outcomes, strict=True)
    ]


def show(rows: list[Row]) -> None:
    def line(row: Row) -> list[str]:
        traffic = row.traffic
        load = f"{traffic.rate:.1f}/s ({row.share_of_capacity:.0%})" if traffic.rate else f"{CLIENTS} clients"
        cells = [f"{row.model} {load} {traffic.prompt_tokens}+{traffic.output_tokens}"]
        for key in Figures.__struct_fields__:
            scale = 1 if key == "tokens_per_second" else 1e3
            found = (getattr(figures, key) * scale for figures in (row.predicted, row.measured))
            cells.append(" / ".join(f"{value:.4g}" for value in found) + f" {getattr(row.errors, key):+.0%}")
        return cells

    columns = ["predicted / measured", "tokens/s", "ttft p95 ms", "tpot p95 ms", "answer p95 ms"]
    table("plan serve against the service", columns, [line(row) for row in rows])


def keep(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))


def held(row: Row) -> bool:
    times = (row.errors.ttft_p95, row.errors.tpot_p95, row.errors.latency_p95)
    return abs(row.errors.tokens_per_second) <= THROUGHPUT_BOUND and all(abs(e) <= P95_BOUND for e in times)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--replicas", type=int, default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows: list[Row] = []
    profiles: dict[str, EngineProfile] = {}
    overrides = Overrides(replicas=arguments.replicas, threads=arguments.threads)
    for name in arguments.models:
        model = served_model(name, overrides)
        say(f"{model.name}: profile")
        first = measure_profiles({model.name: (model.artifact, model.serving)}, home(), rounds=2)
        profiles[model.name], found = measure(model, first[model.name], arguments.rounds)
        rows += found
        keep(
            Result(hardware=this_machine(), created=now(), rows=tuple(rows), profiles=profiles),
            arguments.output,
        )
    show(rows)
    return 0 if all(map(held, rows)) else 1


if __name__ == "__main__":
    sys.exit(main())
