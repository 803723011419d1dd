"""`trimtab plan compress`: which cuts and bits can meet a service level on an engine, and which gain nothing. Words
only.
"""

from __future__ import annotations

import difflib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from trimtab.cli.console import progress, say, table
from trimtab.cli.output import emit_json
from trimtab.cli.plan_level import read_level
from trimtab.cli.serve import Overrides, served_model
from trimtab.spec.errors import RefusedError, UsageError
from trimtab.spec.serving import EngineName, WeightFormat
from trimtab.spec.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from trimtab.planning.compression.evidence import Engine, Refusal, Step
    from trimtab.planning.compression.plan import CompressionPlan, Option
    from trimtab.service.launch import ServedModel
    from trimtab.spec.engine_profile import CompressionProfile

AUTO = "depth,width,kv_groups,int8"


def compress(
    model: Annotated[str, typer.Argument(metavar="NAME|FOLDER", help="As `trimtab serve` takes it.")],
    *,
    engine: Annotated[
        str, typer.Option(help="openvino, transformers, onnxruntime, vllm or llama.cpp.")
    ] = "openvino",
    steps: Annotated[
        str, typer.Option(help="Of depth, width, kv_groups, bf16, int8, int4, unstructured, 2:4, …")
    ] = AUTO,
    speedup: Annotated[float | None, typer.Option(help="Output tokens/s, times the model's own.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Clients; default 16.")] = None,
    rate: Annotated[float | None, typer.Option(help="Or: requests per second.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt.")] = 64,
    output_tokens: Annotated[int, typer.Option(help="Tokens of an answer.")] = 64,
    ttft_p95: Annotated[str | None, typer.Option(help="Limit of the time to first token: 300ms.")] = None,
    tpot_p95: Annotated[str | None, typer.Option(help="Limit per output token after it: 40ms.")] = None,
    memory: Annotated[str | None, typer.Option(help="Limit of the service's memory: 2GiB.")] = None,
    tokens_per_second: Annotated[float | None, typer.Option(help="Output tokens/s that are needed.")] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure shapes and formats here first (minutes), and keep that."),
    ] = False,
    profile: Annotated[Path | None, typer.Option(help="A profile measured elsewhere, as JSON.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many options to show.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Predict what compression can do for MODEL on an engine: size, speed-up, risk; and refuse what cannot help."""
    from trimtab.planning.serving.traffic import Traffic

    target, asked = _engine(engine), _steps(steps)
    if speedup is not None and not 0 < speedup < float("inf"):
        raise UsageError(f"{speedup:g} times is no speed-up.", where="--speedup", remedy="Such as 2.")
    level = read_level(
        ttft_p95=ttft_p95, tpot_p95=tpot_p95, memory=memory, tokens_per_second=tokens_per_second
    )
    clients = concurrency if rate is not None or concurrency is not None else 16
    traffic = Traffic(
        prompt_tokens=prompt_tokens, output_tokens=output_tokens, rate=rate, concurrency=clients
    ).check(None)
    from trimtab.planning.compression.evidence import refusal

    refused = [found for step in asked if (found := refusal(step, target)) is not None]
    useful = [step for step in asked if refusal(step, target) is None]
    if not useful:
        _refuse(refused, target, as_json=as_json)
    with ExitStack() as stack:
        served = served_model(model, Overrides(engine=_served_by(target)), stack)
        if served.artifact is None:
            raise UsageError("there is nothing to compress.", where=model, remedy="Name a model.")
        shapes = _shapes(served.artifact, useful)
        measured = _profile(served, useful, profile, measure=measure)
    from trimtab.planning.compression.plan import plan_compression

    plan = plan_compression(
        measured, shapes, traffic, level, speedup=speedup, formats=_formats(useful), refused=refused
    )
    shown = msgspec.structs.replace(plan, options=plan.options[:top])
    if as_json:
        emit_json(shown)
    else:
        _show(measured, shown, target)
    if not plan.feasible:
        raise RefusedError(plan.reason or "", where=model, remedy=plan.nearest)


def _engine(name: str) -> Engine:
    from trimtab.planning.compression.evidence import ENGINES

    for engine in ENGINES:
        if name == engine:
            return engine
    raise _unknown(name, ENGINES, "engine", "--engine")


def _steps(text: str) -> list[Step]:
    from trimtab.planning.compression.evidence import STEPS

    found = []
    for word in (part.strip() for part in text.split(",")):
        step = next((known for known in STEPS if known == word), None)
        if step is None:
            raise _unknown(word, STEPS, "step", "--steps")
        found.append(step)
    return found


def _unknown(word: str, known: tuple[str, ...], what: str, flag: str) -> UsageError:
    near = difflib.get_close_matches(word, known, n=1)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return UsageError(f"{word!r} is no {what} that is known.", where=flag, remedy=remedy)


def _refuse(refused: list[Refusal], engine: Engine, *, as_json: bool) -> None:
    """Everything that was asked for gains nothing on this engine."""
    if as_json:
        emit_json({"feasible": False, "refused": refused, "options": []})
    reasons = " ".join(f"{one.step}: {one.reason} ({one.source})" for one in refused)
    raise RefusedError(
        reasons,
        where=engine,
        remedy="What speeds it up: --steps depth,width,kv_groups, which make every product smaller.",
    )


def _served_by(engine: Engine) -> EngineName:
    """Only engines that Trimtab serves can be measured, and only what was measured is predicted."""
    if engine in ("openvino", "transformers"):
        return engine
    raise RefusedError(
        f"Trimtab does not serve with {engine}, so its speed cannot be measured here.",
        where="--engine",
        remedy="Ask for --engine openvino; shapes that are equal in all layers speed up both alike.",
    )


def _shapes(artifact: Path, steps: list[Step]) -> list[tuple[int, int, int]]:
    from trimtab.compression.candidates import shapes
    from trimtab.models.info import inspect

    info = inspect(artifact)
    found = shapes(info, range(info.layers), methods=steps)
    return [(len(shape.layers), shape.ffn, shape.kv_heads) for shape in found]


def _formats(steps: list[Step]) -> list[WeightFormat]:
    return [bits for bits in ("bf16", "int8", "int4") if bits in steps]


def _profile(
    served: ServedModel, steps: list[Step], file: Path | None, *, measure: bool
) -> CompressionProfile:
    from trimtab.spec.artifact import content_digest
    from trimtab.store.home import home
    from trimtab.store.profiles import (
        compression_profile_path,
        load_compression_profile,
        save_compression_profile,
    )

    if served.artifact is None or not measure:
        digest = content_digest(served.artifact) if served.artifact else ""
        return load_compression_profile(file or compression_profile_path(home(), digest, served.serving))
    from trimtab.optimization.profiling import measure_compression

    with progress(f"measure shapes of {served.name}") as bar:
        found = measure_compression(
            served.name,
            served.artifact,
            served.serving,
            _formats(steps),
            home(),
            on_event=lambda event: bar.update(event.fraction, event.target),
        )
    say(f"kept in {save_compression_profile(found, home())}")
    return found


def _show(profile: CompressionProfile, plan: CompressionPlan, engine: Engine) -> None:
    columns = [
        "",
        "weights",
        "memory",
        "faster",
        "alone",
        "ttft p95",
        "tpot p95",
        "risk",
        "distil tokens",
        "",
    ]
    base = plan.baseline
    rows = [
        _row("as it is", base),
        *(_row(", ".join(o.steps), o) for o in plan.options if o.steps != base.steps),
    ]
    load = f"{plan.traffic.concurrency} clients" if plan.traffic.concurrency else f"{plan.traffic.rate:g}/s"
    table(f"{profile.name} on {engine}, {load}", columns, rows)
    for evidence in dict.fromkeys(line for option in plan.options for line in option.evidence):
        say(f"risk: {evidence}")
    for one in plan.refused:
        say(f"refused: {one.step} on {engine}: {one.reason} ({one.source})")
    first = profile.shapes[0].profile
    say(f"Measured {first.created} on {first.hardware}; {len(profile.shapes)} shapes and formats.")


def _row(name: str, option: Option) -> list[str]:
    tokens = option.distill_tokens
    return [
        name,
        format_bytes(option.weights_bytes),
        format_bytes(option.memory_bytes),
        f"{option.speedup:.2f} ×",
        f"{option.speedup_alone:.2f} ×",
        format_duration(option.expected.ttft_p95),
        format_duration(option.expected.tpot_p95),
        option.risk,
        " to ".join(dict.fromkeys(map(format_count, tokens))) if tokens else "–",
        option.reason or "holds every limit",
    ]
