"""`plan_serving` and `plan_compression`: what a service takes, and what compression can do for it, predicted from what
was measured on this machine; or measured first, where that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import msgspec

from trimtab.bench.load import Event as LoadEvent
from trimtab.compression.candidates import shapes
from trimtab.models.info import inspect
from trimtab.models.served import Overrides, served_model
from trimtab.planning.compression.evidence import ENGINES, STEPS, Engine, Refusal, Step, refusal
from trimtab.planning.compression.plan import CompressionPlan, compression_plan
from trimtab.planning.serving.plan import ServingPlan, serving_plan
from trimtab.planning.serving.traffic import Level, Traffic
from trimtab.service.launch import ServedModel
from trimtab.spec.artifact import content_digest
from trimtab.spec.checks import check_between, check_one_of
from trimtab.spec.engine_profile import CompressionProfile, EngineProfile
from trimtab.spec.errors import RefusedError, UsageError
from trimtab.spec.progress import Event, OnEvent, silent
from trimtab.spec.serving import EngineName, WeightFormat
from trimtab.spec.units import parse_bytes, parse_duration
from trimtab.store.artifact import Artifact
from trimtab.store.home import home as default_home
from trimtab.store.profiles import (
    compression_profile_path,
    engine_profile_path,
    load_compression_profile,
    load_engine_profile,
    save_compression_profile,
    save_engine_profile,
)

# What is tried where nothing is named.
AUTO_STEPS: tuple[Step, ...] = ("depth", "width", "kv_groups", "int8")
CLIENTS = 16
Value = TypeVar("Value")


class PlannedService(msgspec.Struct, frozen=True, kw_only=True):
    """The plan, and the profile that it rests on."""

    profile: EngineProfile
    plan: ServingPlan


class PlannedCompression(CompressionPlan, frozen=True, kw_only=True):
    """The plan for `name` on `engine`, and the profile that it rests on: when (UTC) and on what it was measured, and
    how many shapes and formats.
    """

    name: str
    engine: Engine
    measured: str
    hardware: str
    measurements: int


class NothingGainsError(RefusedError):
    """Everything that was asked for gains nothing on this engine; `refused` says why of each."""

    def __init__(self, refused: Sequence[Refusal], engine: Engine) -> None:
        super().__init__(
            " ".join(f"{one.step}: {one.reason} ({one.source})" for one in refused),
            where=engine,
            remedy="What speeds it up: --steps depth,width,kv_groups, which make every product smaller.",
        )
        self.refused = tuple(refused)


def plan_serving(
    model: Artifact | Path | str,
    *,
    rate: float | None = None,
    concurrency: int | None = None,
    prompt_tokens: int = 64,
    output_tokens: int = 64,
    ttft_p95: str | float | None = None,
    tpot_p95: str | float | None = None,
    memory: str | int | None = None,
    tokens_per_second: float | None = None,
    price: float | None = None,
    engine: EngineName | None = None,
    weight_format: WeightFormat | None = None,
    replicas: int | None = None,
    threads: int | None = None,
    measure: bool = False,
    profile: Path | str | EngineProfile | None = None,
    home: Path | None = None,
    progress: OnEvent = silent,
) -> PlannedService:
    """Predict replicas, bounds, memory, latencies and cost of serving a model under a traffic.

    `model` as `serve` takes it. `rate` in requests a second, or `concurrency` clients that ask one after the other; one
    of the two. Limits: `ttft_p95` and `tpot_p95` in seconds or as `"300ms"`, `memory` of a machine in bytes or as
    `"2GiB"`, `tokens_per_second` of output. `price` of a machine and hour. `measure` measures the engine here first
    (about a minute) and keeps that; `profile` was measured elsewhere.
    Raises `UsageError`, `NotFoundError` where nothing was measured, and what a model that cannot be served raises. A
    level that cannot be held is no error: `plan.feasible` says so, `plan.nearest` what can. See
    docs/planning-serving.md.
    """
    traffic = Traffic(
        prompt_tokens=prompt_tokens, output_tokens=output_tokens, rate=rate, concurrency=concurrency
    ).check(None)
    level = _level(ttft_p95, tpot_p95, memory, tokens_per_second)
    if price is not None and not 0 <= price < float("inf"):
        raise UsageError(
            f"{price} is no price.", where="--price", remedy="Give what one machine costs an hour."
        )
    place = home or default_home()
    if isinstance(profile, EngineProfile):
        found = profile
    elif profile is not None:
        found = load_engine_profile(Path(profile))
    else:
        overrides = Overrides(engine=engine, weight_format=weight_format, replicas=replicas, threads=threads)
        served = served_model(model, overrides.check(), home=place, progress=progress)
        found = engine_profile(served, place, measure=measure, progress=progress)
    return PlannedService(profile=found, plan=serving_plan(found, traffic, level, price_per_hour=price))


def engine_profile(
    served: ServedModel, home: Path, *, measure: bool = False, progress: OnEvent = silent
) -> EngineProfile:
    """The kept profile of a served model, or a new one. Raises `NotFoundError` where there is none."""
    if not measure:
        digest = "mock" if served.artifact is None else content_digest(served.artifact)
        return load_engine_profile(engine_profile_path(home, digest, served.serving))
    from trimtab.optimization.profiling import measure_profiles

    stage = f"measure {served.name}"
    rows = {served.name: (served.artifact, served.serving)}
    found = measure_profiles(rows, home, on_event=_passing_on(progress, stage))[served.name]
    kept = save_engine_profile(found, home)
    progress(Event(stage=stage, fraction=1.0, remark=f"kept in {kept}"))
    return found


def plan_compression(
    model: Artifact | Path | str,
    *,
    engine: Engine = "openvino",
    steps: str | Sequence[str] = AUTO_STEPS,
    speedup: float | None = None,
    concurrency: int | None = None,
    rate: float | None = None,
    prompt_tokens: int = 64,
    output_tokens: int = 64,
    ttft_p95: str | float | None = None,
    tpot_p95: str | float | None = None,
    memory: str | int | None = None,
    tokens_per_second: float | None = None,
    measure: bool = False,
    profile: Path | str | CompressionProfile | None = None,
    top: int = 12,
    home: Path | None = None,
    progress: OnEvent = silent,
) -> PlannedCompression:
    """Predict what compression can do for a model on an engine: size, speed-up, risk; and refuse what cannot help.

    `steps`: of depth, width, kv_groups, bf16, int8, int4, unstructured, 2:4 and others, in a list or by commas.
    `speedup`: output tokens/s, times the model's own. Without a traffic, 16 clients. Limits as in `plan_serving`.
    `measure` measures shapes and formats here first (minutes) and keeps that.
    Raises `UsageError`, `NotFoundError` where nothing was measured, and `NothingGainsError` (a `RefusedError`) where
    nothing that was asked for gains anything on this engine. Sources: `planning/compression/evidence.py`.
    """
    check_one_of(engine, ENGINES, "--engine")
    check_between(top, 1, 10**9, "--top")
    asked = _steps(steps)
    if speedup is not None and not 0 < speedup < float("inf"):
        raise UsageError(f"{speedup:g} times is no speed-up.", where="--speedup", remedy="Such as 2.")
    level = _level(ttft_p95, tpot_p95, memory, tokens_per_second)
    clients = concurrency if rate is not None or concurrency is not None else CLIENTS
    traffic = Traffic(
        prompt_tokens=prompt_tokens, output_tokens=output_tokens, rate=rate, concurrency=clients
    ).check(None)
    refused = [found for step in asked if (found := refusal(step, engine)) is not None]
    useful = [step for step in asked if refusal(step, engine) is None]
    if not useful:
        raise NothingGainsError(refused, engine)
    place = home or default_home()
    served = served_model(model, Overrides(engine=_served_by(engine)), home=place, progress=progress)
    if served.artifact is None:
        raise UsageError("there is nothing to compress.", where=str(model), remedy="Name a model.")
    measured = _compression_profile(served, served.artifact, useful, profile, place, measure, progress)
    plan = compression_plan(
        measured,
        _shapes(served.artifact, useful),
        traffic,
        level,
        speedup=speedup,
        formats=_formats(useful),
        refused=refused,
    )
    first = measured.shapes[0].profile
    fields = {name: getattr(plan, name) for name in CompressionPlan.__struct_fields__}
    return PlannedCompression(
        **fields | {"options": plan.options[:top]},
        name=measured.name,
        engine=engine,
        measured=first.created,
        hardware=str(first.hardware),
        measurements=len(measured.shapes),
    )


def _level(
    ttft_p95: str | float | None,
    tpot_p95: str | float | None,
    memory: str | int | None,
    tokens_per_second: float | None,
) -> Level:
    """Raises `UsageError` naming the option."""
    return Level(
        ttft_p95=_read(ttft_p95, parse_duration, "--ttft-p95"),
        tpot_p95=_read(tpot_p95, parse_duration, "--tpot-p95"),
        memory_bytes=_read(memory, parse_bytes, "--memory"),
        tokens_per_second=tokens_per_second,
    ).check()


def _read(value: str | Value | None, parse: Callable[[str], Value], where: str) -> Value | None:
    """Text with its unit, or the number itself."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError as error:
        raise UsageError(f"{error}.", where=where) from error


def _steps(named: str | Sequence[str]) -> list[Step]:
    words = named.split(",") if isinstance(named, str) else named
    found: list[Step] = []
    for word in (word.strip() for word in words):
        check_one_of(word, STEPS, "--steps")
        found += [step for step in STEPS if step == word]
    return found


def _served_by(engine: Engine) -> EngineName:
    """Only engines that Trimtab serves can be measured, and only what was measured is predicted."""
    if engine in ("openvino", "transformers"):
        return engine
    raise RefusedError(
        f"Trimtab does not serve with {engine}, so its speed cannot be measured here.",
        where="--engine",
        remedy="Ask for --engine openvino; shapes that are equal in all layers speed up both alike.",
    )


def _shapes(artifact: Path, steps: Sequence[Step]) -> list[tuple[int, int, int]]:
    info = inspect(artifact)
    found = shapes(info, range(info.layers), methods=list(steps))
    return [(len(shape.layers), shape.ffn, shape.kv_heads) for shape in found]


def _formats(steps: Sequence[Step]) -> list[WeightFormat]:
    return [bits for bits in get_args(WeightFormat) if bits in steps]


def _compression_profile(
    served: ServedModel,
    artifact: Path,
    steps: Sequence[Step],
    profile: Path | str | CompressionProfile | None,
    home: Path,
    measure: bool,
    progress: OnEvent,
) -> CompressionProfile:
    if isinstance(profile, CompressionProfile):
        return profile
    if not measure:
        kept = compression_profile_path(home, content_digest(artifact), served.serving)
        return load_compression_profile(Path(profile) if profile else kept)
    from trimtab.optimization.profiling import measure_compression

    stage = f"measure shapes of {served.name}"
    found = measure_compression(
        served.name,
        artifact,
        served.serving,
        _formats(steps),
        home,
        on_event=_passing_on(progress, stage),
    )
    kept = save_compression_profile(found, home)
    progress(Event(stage=stage, fraction=1.0, remark=f"kept in {kept}"))
    return found


def _passing_on(progress: OnEvent, stage: str) -> Callable[[LoadEvent], None]:
    """News of a load as news of the whole."""
    return lambda event: progress(Event(stage=stage, fraction=event.fraction, note=event.target))
