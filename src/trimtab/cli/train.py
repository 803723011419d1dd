"""`trimtab train RECIPE`: a model trained as the recipe says, as a Hugging Face folder. Resumes what was
cut off.

It works in the recipe's run folder, so `optimize` with the same recipe goes on with the model trained here.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from trimtab.cli.console import emit_json, say, stages
from trimtab.cli.job_file import Cluster, job_file, refuse_flags
from trimtab.spec.errors import UsageError
from trimtab.spec.units import format_count, format_duration

KEEP, HANG_SECONDS = 2, 60.0

if TYPE_CHECKING:
    from trimtab.optimization.training import RunOptions, Training
    from trimtab.optimization.workspace import OnEvent, Workspace
    from trimtab.parallel.launching.choice import Launch
    from trimtab.spec.recipe import Recipe


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (YAML).")],
    *,
    processes: Annotated[
        str | None,
        typer.Option(
            help="How many processes share every batch; on Ray also FEWEST:MOST. Default: the recipe's."
        ),
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
    on: Annotated[
        Literal["local", "torchrun", "ray"] | None,
        typer.Option(help="Where processes run. Default: torchrun if it started this, else local."),
    ] = None,
    restarts: Annotated[
        int | None,
        typer.Option(
            min=0, help="How often to start again after a process died or hung. Default: 0; --emit: 3."
        ),
    ] = None,
    hang_seconds: Annotated[
        float, typer.Option(min=2, help="A process that gives no sign for this long hangs.")
    ] = HANG_SECONDS,
    keep: Annotated[int, typer.Option(min=1, help="How many of the last checkpoints stay.")] = KEEP,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="Also keep the checkpoint of lowest held-out loss.")
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on from a checkpoint of another model, tokenizer, data or recipe, such as another length.",
        ),
    ] = False,
    log: Annotated[Path | None, typer.Option(help="Append figures of every step as JSON lines.")] = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write them to this TensorBoard folder.")] = None,
    mlflow: Annotated[str | None, typer.Option(help="Send them to this MLflow tracking address.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Trace a few steps, for Perfetto, in the run's folder.")
    ] = False,
    emit: Annotated[
        Literal["slurm", "kubernetes"] | None,
        typer.Option(help="Print a job file that does this on a cluster, and do nothing else."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, help="With --emit: over how many machines.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, help="With --emit: GPUs of each process.")] = 0,
    cores: Annotated[int, typer.Option(min=1, help="With --emit: cores of each process.")] = 1,
    image: Annotated[str, typer.Option(help="With --emit kubernetes: an image with trimtab.")] = "trimtab",
    claim: Annotated[
        str, typer.Option(help="With --emit kubernetes: the volume claim for the run's files.")
    ] = "trimtab",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prepare the data, train over several processes, save a folder that stock transformers loads.

    Ctrl-C saves a checkpoint; the same command goes on from it.
    """
    from trimtab.optimization.training import RunOptions
    from trimtab.parallel.launching.choice import Launch
    from trimtab.parallel.launching.start import under_torchrun
    from trimtab.spec.recipe import Recipe
    from trimtab.training.job import Watching

    wanted = Recipe.load(recipe)
    least, most = _range(processes)
    laid_out = _laid_out(wanted, most, layout)
    if emit is not None:
        refuse_flags({"--fresh": fresh, "--output": output, "--on": on, "--json": as_json})
        flags: dict[str, object] = {
            "--processes": most,
            "--layout": layout,
            "--hang-seconds": hang_seconds if hang_seconds != HANG_SECONDS else None,
            "--keep": keep if keep != KEEP else None,
            "--keep-best": keep_best,
            "--accept-changes": accept_changes,
            "--log": log,
            "--tensorboard": tensorboard,
            "--mlflow": mlflow,
            "--profile": profile,
        }
        attempts = 3 if restarts is None else restarts
        cluster = Cluster(
            kind=emit, nodes=nodes, gpus=gpus, cores=cores, restarts=attempts, image=image, claim=claim
        )
        print(job_file(cluster, recipe, laid_out, processes=most, flags=flags), end="")
        return
    where = on or ("torchrun" if under_torchrun() else "local")
    if where == "torchrun" and _followed(hang_seconds):
        return
    launch = Launch(on=where, restarts=restarts or 0, least=least, hang_seconds=hang_seconds)
    watching = Watching(log=_absolute(log), tensorboard=_absolute(tensorboard), mlflow=mlflow)
    options = RunOptions(keep=keep, keep_best=keep_best, accept_changes=accept_changes, watching=watching)
    folder, result = _run(wanted, laid_out, output, launch, options, fresh=fresh, profile=profile)
    _show(folder, result, as_json)


def _run(
    wanted: Recipe,
    laid_out: Recipe,
    output: Path | None,
    launch: Launch,
    options: RunOptions,
    *,
    fresh: bool,
    profile: bool,
) -> tuple[Path, Training]:
    """In the recipe's run folder, or in `output`."""
    from trimtab.optimization.workspace import Workspace
    from trimtab.store.home import home

    # Schedulers end a job with SIGTERM; it means what Ctrl-C means.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A folder that was named may lie on storage that other machines see, where a scheduler moves the run.
    accept = options.accept_changes
    with Workspace(wanted, output, home(), anywhere=output is not None, accept_changes=accept) as workspace:
        if fresh and not _started_again():
            workspace.start_over()
        traces = workspace.folder / "profile"
        if profile:
            watching = msgspec.structs.replace(options.watching, profile=str(traces))
            options = msgspec.structs.replace(options, watching=watching)
        with stages() as on_event:
            done = _train(_as_started(laid_out, launch.on), workspace, launch, options, on_event)
    if profile:
        say(f"traces are in {traces}")
    return done


def _show(folder: Path, result: Training, as_json: bool) -> None:
    if as_json:
        emit_json({"model": str(folder), "training": result})
        return
    last = result.curve[-1]
    amount, rate, unit, what = result.tokens, result.tokens_per_second, "tokens", "text"
    if not amount:
        amount, rate, unit, what = result.samples, result.samples_per_second, "samples", "samples"
    held_out = f", {last.validation_loss:.3f} on held-out {what}" if last.validation_loss is not None else ""
    if last.validation_accuracy is not None:
        held_out += f", {last.validation_accuracy:.1%} of them right"
    say(
        f"trained on {format_count(amount)} {unit} in {format_duration(result.seconds)} "
        f"({format_count(rate)} {unit}/s, {result.precision}, {result.optimizer}): "
        f"loss {last.loss:.3f}{held_out}{_prediction(result)}"
    )
    print(folder)


def _prediction(result: Training) -> str:
    """How long a step was expected to take, on a machine that was calibrated."""
    if result.predicted_step_seconds is None or result.step_seconds is None:
        return ""
    predicted, measured = (format_duration(s) for s in (result.predicted_step_seconds, result.step_seconds))
    return f"; a step took {measured}, {predicted} predicted"


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


def _as_started(recipe: Recipe, where: str) -> Recipe:
    """Under torchrun a recipe that leaves the layout open takes as many replicas as there are processes."""
    from trimtab.spec.layout import Layout

    if where != "torchrun" or recipe.parallel != "auto":
        return recipe
    return recipe.model_copy(update={"parallel": Layout(data=int(os.environ["WORLD_SIZE"]))})


def _range(processes: str | None) -> tuple[int | None, int | None]:
    """`4` → (None, 4); `2:4` → (2, 4). Raises `UsageError`."""
    if processes is None:
        return None, None
    found = re.fullmatch("(?:([1-9][0-9]{0,5}):)?([1-9][0-9]{0,5})", processes)
    least, most = (int(part) if part else None for part in found.groups()) if found else (None, 0)
    if not most or (least or 0) > most:
        raise UsageError(
            f"{processes!r} is no number of processes.",
            where="--processes",
            remedy="Such as 4, or 2:4 on Ray.",
        )
    return least, most


def _absolute(path: Path | None) -> str | None:
    """Processes elsewhere have other working folders."""
    return str(path.resolve()) if path else None


def _started_again() -> bool:
    """Whether torchrun has restarted this process: then --fresh has been obeyed already."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _followed(hang_seconds: float) -> bool:
    """Under torchrun all ranks but the first take their jobs from it; True when there are no more."""
    if os.environ.get("RANK", "0") == "0":
        return False
    from trimtab.parallel.launching.joined import follow

    follow(hang_seconds)
    return True


def _train(
    recipe: Recipe, workspace: Workspace, launch: Launch, options: RunOptions, on_event: OnEvent
) -> tuple[Path, Training]:
    """A model from its architecture, or the recipe's model trained on."""
    from trimtab.optimization.baseline import take_baseline
    from trimtab.optimization.beginning import fitted, locate, prepare_data, prepare_pictures, settle
    from trimtab.optimization.laying_out import choose_layout
    from trimtab.optimization.training import Trainer, Training
    from trimtab.store.store import Store

    store = Store()
    ready = locate(recipe, store)
    recipe = settle(recipe, ready)
    prepare = prepare_pictures if recipe.task == "image-classification" else prepare_data
    data = prepare(recipe, workspace, ready)
    if launch.on == "local":
        recipe = choose_layout(recipe, workspace, data, ready, store.home, on_event)
    with Trainer(recipe, workspace, data, launch=launch, options=options, home=store.home) as trainer:
        if ready is None:
            baseline = take_baseline(recipe, workspace, data, None, trainer, on_event)
            if baseline.trained is not None:
                return baseline.path, baseline.trained
        else:
            folder = workspace.folder / "models" / "trained"

            def train_on() -> Training:
                model = fitted(recipe, workspace, data, ready, on_event)
                job = trainer.job(model, folder, trainer.length(model), schedule=trainer.schedule_of_ready)
                return trainer.train("the model", job, on_event)

            return folder, workspace.step("trained", Training, train_on)
    raise TypeError("a baseline made from an architecture was trained")
