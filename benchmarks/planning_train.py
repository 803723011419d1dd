"""Does `plan train` predict this machine? It is calibrated, four layouts are predicted, then all are run in turn.

    python benchmarks/planning_train.py              # about 10 minutes on 2 idle cores
    python benchmarks/planning_train.py --layers 6 --hidden 384 --optimizer muon data=2

Every layout has a group of two processes of its own, and every round runs a few steps of each, in an order that
changes; plain data parallelism runs twice, and its ratio to itself is the noise. The first run of each group gives
its peak memory. Calibration comes before the first round and after the last, and predictions are the mean of both,
so that a machine whose speed drifts is met half way. Writes `benchmarks/results/planning_train.json`; exits 1 where a
bound is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean, median

import msgspec

from trimtab.cli.console import say, table
from trimtab.data.prepare import prepare
from trimtab.models.create import create
from trimtab.optimization.expectation import expect
from trimtab.parallel.launching.launch import Group, launch
from trimtab.parallel.machine import measure_machine
from trimtab.spec.architectures import Architecture
from trimtab.spec.clock import now
from trimtab.spec.hardware import Hardware, this_machine
from trimtab.spec.layout import Layout, parse_layout
from trimtab.spec.measures import Estimate
from trimtab.spec.profile import Profile
from trimtab.spec.recipe_data import Data
from trimtab.spec.units import format_bytes, format_duration
from trimtab.stats.paired import CLAIM_ROUNDS, Noise, noise, ratio
from trimtab.training.job import Rate, TrainJob

RESULTS = Path(__file__).resolve().parent / "results" / "planning_train.json"
PROCESSES = 2
LAYOUTS = ("data=2", "shard=2,reshard=on", "tensor=2", "pipeline=2")
AGAIN = "again"
STEP_BOUND, MEMORY_BOUND, REGRET_BOUND = 0.15, 0.10, 0.05


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One layout. Errors are predicted ÷ measured, less 1. `over_first` is paired with the first layout's rounds."""

    layout: str
    predicted_seconds: float
    measured_seconds: float
    step_error: float
    over_first: Estimate
    predicted_bytes: int
    measured_bytes: int
    memory_error: float
    rounds: list[float]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """`regret`: how much slower the layout that is predicted to be fastest is than the fastest."""

    date: str
    machine: Hardware
    model: dict[str, object]
    job: str
    rows: list[Row]
    noise: Noise
    regret: float
    holds: bool
    profiles: list[Profile]


def main() -> int:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="trimtab-planning-") as name:
        result = _measure(arguments, Path(name))
    _show(result)
    if not arguments.trial:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    return 0 if result.holds else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="*", default=list(LAYOUTS), metavar="LAYOUT")
    parser.add_argument("--rounds", type=int, default=CLAIM_ROUNDS)
    for flag, default in (("layers", 4), ("hidden", 256), ("batch", 8), ("length", 256)):
        parser.add_argument(f"--{flag}", type=int, default=default)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--try", dest="trial", action="store_true", help="a short run that writes no results")
    arguments = parser.parse_args()
    if not arguments.trial and arguments.rounds < CLAIM_ROUNDS:
        parser.error(f"a claim needs {CLAIM_ROUNDS} rounds or more")
    return arguments


def _measure(arguments: argparse.Namespace, folder: Path) -> Result:
    shape = Architecture(
        architecture="llama",
        layers=arguments.layers,
        hidden=arguments.hidden,
        heads=arguments.hidden // 64,
        kv_heads=max(2, arguments.hidden // 128),
        ffn=3 * arguments.hidden,
        vocabulary=2048,
    )
    data = prepare(Data(stdlib="python"), folder / "data", tokenizer=None, vocabulary=shape.vocabulary)
    model = create(shape, data.tokenizer_folder, folder / "model", 0)
    layouts = [parse_layout(text) for text in arguments.layouts]
    jobs = {str(layout): _job(arguments, layout, model, data.folder, folder) for layout in layouts}
    profiles = [measure_machine(PROCESSES)]
    rates = _run(jobs, layouts, arguments.rounds)
    profiles.append(measure_machine(PROCESSES))
    first = str(layouts[0])
    rows = [_row(str(layout), jobs[str(layout)], rates, first, profiles) for layout in layouts]
    fastest = min(rows, key=lambda row: row.measured_seconds)
    chosen = min(rows, key=lambda row: row.predicted_seconds)
    regret = chosen.measured_seconds / fastest.measured_seconds - 1
    holds = regret <= REGRET_BOUND and all(
        abs(row.step_error) <= STEP_BOUND and abs(row.memory_error) <= MEMORY_BOUND for row in rows
    )
    return Result(
        date=now(),
        machine=this_machine(),
        model=shape.model_dump(),
        job=f"{PROCESSES} processes over gloo, batch {arguments.batch} × {arguments.length}, float32, "
        f"{arguments.optimizer}",
        rows=rows,
        noise=noise([r.step_seconds for r in rates[AGAIN]], [r.step_seconds for r in rates[first]]),
        regret=regret,
        holds=holds,
        profiles=profiles,
    )


def _job(arguments: argparse.Namespace, layout: Layout, model: Path, data: Path, folder: Path) -> TrainJob:
    return TrainJob(
        model=str(model),
        data=str(data),
        output=str(folder / "output"),
        tokens=10**9,
        optimizer=arguments.optimizer,
        layout=layout,
        batch=arguments.batch,
        sequence_length=arguments.length,
        precision="float32",
    )


def _run(jobs: dict[str, TrainJob], layouts: list[Layout], rounds: int) -> dict[str, list[Rate]]:
    """By layout, its rate in every round; `AGAIN` is the first layout in processes of its own."""
    with ExitStack() as stack:
        groups: dict[str, Group] = {
            name: stack.enter_context(launch(layout))
            for name, layout in [*((str(layout), layout) for layout in layouts), (AGAIN, layouts[0])]
        }
        todo = {name: jobs.get(name, jobs[str(layouts[0])]) for name in groups}
        rates: dict[str, list[Rate]] = {name: [] for name in groups}
        names = list(groups)
        for number in range(rounds):
            order = names[number % len(names) :] + names[: number % len(names)]
            for name in order if number % 2 else order[::-1]:
                answer = groups[name].run("rate", msgspec.to_builtins(todo[name]))
                rates[name].append(msgspec.convert(answer, Rate))
            shown = ", ".join(f"{name} {format_duration(r[-1].step_seconds)}" for name, r in rates.items())
            say(f"round {number + 1} of {rounds}: {shown}")
    return rates


def _row(name: str, job: TrainJob, rates: dict[str, list[Rate]], first: str, profiles: list[Profile]) -> Row:
    plans = [plan for profile in profiles if (plan := expect(job, profile, precision="float32"))]
    seconds = fmean(plan.step_seconds for plan in plans if plan.step_seconds)
    size = round(fmean(plan.memory_bytes.total for plan in plans if plan.memory_bytes))
    measured = [rate.step_seconds for rate in rates[name]]
    held = rates[name][0].peak_memory_bytes
    return Row(
        layout=name,
        predicted_seconds=seconds,
        measured_seconds=median(measured),
        step_error=seconds / median(measured) - 1,
        over_first=ratio(measured, [rate.step_seconds for rate in rates[first]]),
        predicted_bytes=size,
        measured_bytes=held,
        memory_error=size / held - 1,
        rounds=measured,
    )


def _show(result: Result) -> None:
    rows = [
        [
            row.layout,
            format_duration(row.predicted_seconds),
            format_duration(row.measured_seconds),
            f"{row.step_error:+.1%}",
            format_bytes(row.predicted_bytes),
            format_bytes(row.measured_bytes),
            f"{row.memory_error:+.1%}",
        ]
        for row in result.rows
    ]
    table(
        result.job,
        ["layout", "predicted", "measured", "error", "memory predicted", "measured", "error"],
        rows,
    )
    say(
        f"A/A noise {result.noise.ratio}; the predicted choice is {result.regret:.1%} behind the fastest; "
        f"{'every bound holds' if result.holds else 'a bound is missed'}."
    )


if __name__ == "__main__":
    sys.exit(main())
