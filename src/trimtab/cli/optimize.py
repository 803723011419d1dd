"""`trimtab optimize RECIPE|FOLDER`: the main job. Exit 0 with a winner, 3 where nothing holds every limit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import say, stages, table
from trimtab.cli.output import emit_json
from trimtab.cli.sources import text_source
from trimtab.spec.errors import EXIT_REFUSED, UsageError
from trimtab.spec.folder import store_name
from trimtab.spec.units import format_bytes, format_duration

if TYPE_CHECKING:
    from trimtab.spec.recipe import Recipe
    from trimtab.spec.verdict import Candidate, Verdict


def optimize(
    source: Annotated[
        Path, typer.Argument(help="A recipe (YAML), or a model's folder together with --data.")
    ],
    data: Annotated[str | None, typer.Option(help="For a folder: text:FILE to measure quality on.")] = None,
    name: Annotated[str | None, typer.Option(help="For a folder: the name to publish under.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the run keeps its files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Search, measure, prove and publish. The same command resumes an interrupted run.

    A folder alone is optimized without training: bits and serving configuration, in minutes.
    """
    from trimtab.optimization.beginning import folder_named, refuse_other_tasks
    from trimtab.optimization.run import optimize as run

    recipe = recipe_of(source, data, name)
    refuse_other_tasks(recipe, folder_named(recipe))
    show_forecast(recipe, output)
    with stages() as on_event:
        verdict = run(recipe, output=output, on_event=on_event)
    if as_json:
        emit_json(verdict)
    else:
        show(verdict)
    if not verdict.feasible:
        raise typer.Exit(EXIT_REFUSED)


def recipe_of(source: Path, data: str | None, name: str | None) -> Recipe:
    """The recipe in a file, or the one that stands for a folder and `--data`."""
    from trimtab.spec.recipe import Recipe

    if not source.is_dir():
        if data or name:
            raise UsageError("--data and --name go with a model's folder.", where=str(source))
        return Recipe.load(source)
    if data is None:
        raise UsageError("a folder needs text to measure on.", where="--data", remedy="Add --data text:FILE.")
    return Recipe.model_validate(
        {
            "version": 1,
            "name": name or store_name(source),
            "model": str(source.resolve()),
            "data": {"test": text_source(data).model_dump(exclude_none=True)},
            "search": {"distill_tokens": 0},
        }
    )


def show_forecast(recipe: Recipe, output: Path | None = None) -> None:
    """Says how long the run will take, or that there is nothing left to do."""
    from trimtab.optimization.workspace import run_folder
    from trimtab.store.home import home

    folder = output or run_folder(recipe, home())
    if (folder / "verdict.json").exists():
        say(f"this run has ended before; showing what it came to ({folder})")
        return
    from trimtab.optimization.forecast import forecast, matrix_rate, parameters
    from trimtab.spec.architectures import Architecture

    if isinstance(recipe.model, Architecture):
        weights = parameters(recipe.model)
    else:
        weights, model = 0, Path(str(recipe.model))
        if recipe.search.distill_tokens != 0 and model.is_dir():
            from trimtab.models.info import inspect

            weights = inspect(model).parameters
    expected = forecast(recipe, weights or 1, matrix_rate())
    total = format_duration(sum(stage.seconds for stage in expected))
    say(f"forecast: about {total} ({', '.join(f'{s.name} {format_duration(s.seconds)}' for s in expected)})")


def show(verdict: Verdict) -> None:
    """The table, what became of every candidate, the decision, and where the report lies."""
    level = verdict.baseline.speed.loads[-1].concurrency if verdict.baseline.speed else 0
    rows = [_row(c) for c in (verdict.baseline, *verdict.controls, *verdict.candidates)]
    columns = [
        "",
        "parameters",
        "weights",
        "tok/s at 1",
        f"at {level}",
        "first token",
        "memory",
        "perplexity",
    ]
    table(f"{verdict.name}: measured on this machine", columns, rows)
    for candidate in verdict.candidates:
        if candidate.reason:
            say(f"  {candidate.name}: {candidate.reason}")
    winner = verdict.winner
    if winner is None:
        say("infeasible: nothing holds every limit.")
        for reason in verdict.reasons:
            say(f"  {reason}")
        if verdict.nearest:
            say("  nearest level: " + ", ".join(f"{key} {level}" for key, level in verdict.nearest.items()))
    else:
        speedup, quality = winner.speedup[winner.concurrency], winner.quality
        clear = "" if verdict.is_faster else " (not clear of the A/A noise, so not called faster)"
        say(
            f"winner: {winner.candidate}, published as {winner.name}@{winner.version}: {speedup.value:.2f} × "
            f"[{speedup.low:.2f}, {speedup.high:.2f}] the baseline's tokens/s at {winner.concurrency}{clear}, "
            f"{quality.ratio.value:.3f} × its {quality.metric}, {winner.weights_bytes_ratio:.2f} × its bytes, "
            f"{winner.memory_ratio:.2f} × its memory"
        )
    say(f"report: {Path(verdict.run) / 'report.html'}")


def _row(candidate: Candidate) -> list[str]:
    speed, quality = candidate.speed, candidate.quality
    rates = [f"{load.tokens_per_second.value:,.0f}" for load in speed.loads] if speed else ["–", "–"]
    return [
        candidate.name,
        f"{candidate.parameters / 1e6:.2f} M",
        format_bytes(candidate.weights_bytes),
        rates[0],
        rates[-1],
        format_duration(speed.loads[-1].ttft_p50) if speed else "–",
        format_bytes(speed.memory_bytes) if speed else "–",
        f"{quality.perplexity.value:.2f}" if quality else "–",
    ]
