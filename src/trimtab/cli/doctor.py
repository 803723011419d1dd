"""`trimtab doctor`: what this machine is, what is installed, what was measured of it; `--calibrate` measures. Words
only.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from trimtab.cli.console import progress, say, table
from trimtab.cli.output import emit_json
from trimtab.spec.hardware import Hardware, this_machine, usable_cores
from trimtab.spec.units import format_bytes, format_count, format_duration
from trimtab.spec.version import __version__

if TYPE_CHECKING:
    from trimtab.planning.devices.refit import Fitness
    from trimtab.spec.profile import Profile

_PACKAGES = ("torch", "transformers", "openvino", "openvino-genai", "nncf", "ray")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints. A package that is not installed is None; `profile` too, before a calibration."""

    hardware: Hardware
    trimtab: str
    packages: dict[str, str | None]
    home: str
    profile: Profile | None
    fitness: list[Fitness]


def doctor(
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate", help="Measure products, memory and collectives (about two minutes); keep that."
        ),
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="Ranks that measure side by side; default: one a core.")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Correct the profile by what training has measured since.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say what this machine is and has, and measure it for `trimtab plan`."""
    from trimtab.planning.devices.refit import fitness, refitted
    from trimtab.spec.profile import load_profile, save_profile
    from trimtab.store.home import home
    from trimtab.store.profiles import machine_profile_path

    path = machine_profile_path(home())
    if calibrate:
        save_profile(_measure(processes or min(len(usable_cores()), 8)), path)
    profile = load_profile(path) if calibrate or refit or path.exists() else None
    if refit and profile is not None:
        profile = refitted(profile)
        save_profile(profile, path)
    report = Report(
        hardware=this_machine(),
        trimtab=__version__,
        packages={name: _version(name) for name in _PACKAGES},
        home=str(home()),
        profile=profile,
        fitness=fitness(profile) if profile else [],
    )
    if as_json:
        emit_json(report)
    else:
        _show(report, path)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _measure(processes: int) -> Profile:
    from trimtab.parallel.machine import measure_machine

    with progress("calibrate") as bar:
        return measure_machine(processes, lambda event: bar.update(event["fraction"], event["note"]))


def _show(report: Report, path: Path) -> None:
    from trimtab.planning.devices.refit import NOTHING_COMPARED

    rows = [["machine", str(report.hardware)], ["trimtab", report.trimtab], ["home", report.home]]
    rows += [[name, version or "not installed"] for name, version in report.packages.items()]
    profile = report.profile
    if profile is None:
        table("This machine", ["", ""], [*rows, ["profile", "none: trimtab doctor --calibrate"]])
        return
    rows.append(["profile", f"{path}, {profile.measured_at}"])
    rows += _rates(profile)
    table("This machine", ["", ""], rows)
    if not report.fitness:
        say(NOTHING_COMPARED)
    for one in report.fitness:
        say(str(one))


def _rates(profile: Profile) -> list[list[str]]:
    rows = []
    for dtype in dict.fromkeys(sample.dtype for sample in profile.gemm):
        rates = [sample.flops / sample.seconds for sample in profile.gemm if sample.dtype == dtype]
        low, high = min(rates), max(rates)
        rows.append([f"products in {dtype}", f"{format_count(low)} to {format_count(high)} FLOP/s"])
    rows.append(["memory traffic", f"{format_bytes(profile.memory_bytes_per_second)}/s"])
    rows.append(["one operation, one empty step", _pair(profile.launch_seconds, profile.step_seconds)])
    rows += [
        [
            f"{rate.operation}, {rate.ranks} ranks, {rate.backend}",
            f"{format_duration(rate.latency_seconds)} + {format_bytes(rate.bytes_per_second)}/s",
        ]
        for rate in profile.collectives
    ]
    return rows


def _pair(first: float, second: float) -> str:
    return f"{format_duration(first)}, {format_duration(second)}"
