"""`trimtab train RECIPE`: a model trained as the recipe says, as a Hugging Face folder. Resumes what was
cut off.

It works in the recipe's run folder, so `optimize` with the same recipe goes on with the model trained here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import emit_json, say, stages
from trimtab.spec.errors import UsageError
from trimtab.spec.units import format_count, format_duration

if TYPE_CHECKING:
    from trimtab.optimization.training import Training
    from trimtab.optimization.workspace import OnEvent, Workspace
    from trimtab.spec.recipe import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=4096, help="How many processes share every batch; default: the recipe's."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="How the model is laid out over processes, such as data=2,tensor=2; default: the recipe's."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Start over, or go on from the last checkpoint.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Where the run keeps its files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prepare the data, train over several processes, save a folder that stock transformers loads.

    Ctrl-C saves a checkpoint; the same command goes on from it.
    """
    from trimtab.optimization.workspace import Workspace
    from trimtab.spec.recipe import Recipe
    from trimtab.store.home import home

    wanted = Recipe.load(recipe)
    laid_out = _laid_out(wanted, processes, layout)
    with Workspace(wanted, output, home()) as workspace:
        if fresh:
            _start_over(workspace)
        with stages() as on_event:
            folder, result = _train(laid_out, workspace, on_event)
    if as_json:
        emit_json({"model": str(folder), "training": result})
        return
    last = result.curve[-1]
    held_out = f", {last.validation_loss:.3f} on held-out text" if last.validation_loss is not None else ""
    say(
        f"trained on {format_count(result.tokens)} tokens in {format_duration(result.seconds)} "
        f"({format_count(result.tokens_per_second)} tokens/s, {result.precision}, {result.optimizer}): "
        f"loss {last.loss:.3f}{held_out}"
    )
    print(folder)


def _laid_out(recipe: Recipe, processes: int | None, layout: str | None) -> Recipe:
    """The recipe under another layout. How the work is shared is no part of what is asked: the run stays the same."""
    from trimtab.spec.layout import Layout, parse_layout

    if layout is not None and processes is not None:
        raise UsageError(
            "--processes N is short for --layout data=N.", where="--processes", remedy="Use one of the two."
        )
    if layout is not None:
        return recipe.model_copy(update={"parallel": parse_layout(layout, where="--layout")})
    return recipe if processes is None else recipe.model_copy(update={"parallel": Layout(data=processes)})


def _train(recipe: Recipe, workspace: Workspace, on_event: OnEvent) -> tuple[Path, Training]:
    """A model from its architecture, or the recipe's model trained on."""
    from trimtab.optimization.baseline import locate, prepare_data, take_baseline
    from trimtab.optimization.training import TRAINED_ALREADY, Trainer, Training
    from trimtab.store.store import Store

    ready = locate(recipe, Store())
    data = prepare_data(recipe, workspace, ready)
    with Trainer(recipe, workspace, data) as trainer:
        if ready is None:
            baseline = take_baseline(recipe, workspace, data, None, trainer, on_event)
            if baseline.trained is not None:
                return baseline.path, baseline.trained
        else:
            folder = workspace.folder / "models" / "trained"
            job = trainer.job(ready, folder, trainer.length(ready), schedule=TRAINED_ALREADY)
            return folder, workspace.step(
                "trained", Training, lambda: trainer.train("the model", job, on_event)
            )
    raise TypeError("a baseline made from an architecture was trained")


def _start_over(workspace: Workspace) -> None:
    """Forget what was trained and all that was made of it; prepared data stays."""
    for name in ("results", "checkpoints", "models"):
        shutil.rmtree(workspace.folder / name, ignore_errors=True)
    (workspace.folder / "verdict.json").unlink(missing_ok=True)
    (workspace.folder / "results").mkdir()
