"""Repeats the planner's fit, and scores it on published rows that it was not fitted on.

    .venv/bin/python benchmarks/planning_fit.py

Fitted: `Reached.gemm`, on the five rows of SC21's Table 1 in `published.py`. Scored: those rows when left out;
Korthikanti et al.'s eight; MT-NLG's three. Writes `benchmarks/results/planning_fit.json`.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from statistics import mean

import msgspec
import published

from trimtab.planning.devices.accelerators import accelerator, machine_of
from trimtab.planning.devices.efficiency import REACHED
from trimtab.planning.training.architecture import architecture
from trimtab.planning.training.fitting import Observation, fit, leave_one_out, relative_error
from trimtab.planning.training.flops import flops_per_token
from trimtab.planning.training.job import Job
from trimtab.spec.hardware import this_machine
from trimtab.spec.layout import parse_layout

RESULTS = Path(__file__).resolve().parent / "results" / "planning_fit.json"


def job(*, layers: int, hidden: int, heads: int, devices: int, global_batch: int) -> Job:
    """A GPT on A100s, as all of these rows are."""
    sheet = accelerator(published.ACCELERATOR, where="published")
    length = published.SEQUENCE_LENGTH
    shape = {
        "family": "gpt",
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "vocab": published.VOCABULARY,
    }
    return Job(
        architecture=architecture(shape, sequence_length=length, where="published"),
        machine=machine_of(sheet, name=published.ACCELERATOR),
        devices=devices,
        sequence_length=length,
        global_batch=global_batch,
    )


def observation(of: Job, layout: str, step_seconds: float) -> Observation:
    sheet = accelerator(published.ACCELERATOR, where="published")
    return Observation(job=of, sheet=sheet, layout=parse_layout(layout), step_seconds=step_seconds)


def sc21() -> list[Observation]:
    rows = []
    for row in published.SC21:
        of = job(
            layers=row.layers,
            hidden=row.hidden,
            heads=row.heads,
            devices=row.devices,
            global_batch=row.global_batch,
        )
        flops = flops_per_token(of.architecture, of.sequence_length, "full") * of.tokens
        rows.append(observation(of, row.layout, flops / (row.teraflops * 1e12 * row.devices)))
    return rows


def korthikanti() -> list[Observation]:
    rows = []
    for row in published.KORTHIKANTI:
        of = job(
            layers=row.layers,
            hidden=row.hidden,
            heads=row.heads,
            devices=row.devices,
            global_batch=row.global_batch,
        )
        rows.append(observation(of, row.layout + ",recompute=full", row.full_seconds))
        rows.append(observation(of, row.layout + ",sequence=on,recompute=selective", row.selective_seconds))
    return rows


def mt_nlg() -> list[Observation]:
    rows = []
    for devices, seconds in published.MT_NLG:
        of = job(layers=105, hidden=20480, heads=128, devices=devices, global_batch=1920)
        layout = f"data={devices // 280},tensor=8,pipeline=35,micro_batch=1,recompute=full"
        rows.append(observation(of, layout, seconds))
    return rows


def main() -> None:
    fitted = fit(sc21())
    errors = {
        "sc21, each left out of the fit": leave_one_out(sc21()),
        "korthikanti, not fitted": [relative_error(row, fitted) for row in korthikanti()],
        "mt-nlg, not fitted": [relative_error(row, fitted) for row in mt_nlg()],
    }
    for name, found in errors.items():
        sizes = [abs(error) for error in found]
        print(f"{name}: mean {mean(sizes):.1%}, worst {max(sizes):.1%}: {[f'{e:+.1%}' for e in found]}")
    print(f"fitted: {fitted}; in use: {REACHED}")
    record = {
        "fitted": fitted,
        "relative_errors": errors,
        "machine": str(this_machine()),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")


if __name__ == "__main__":
    main()
