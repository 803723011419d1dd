"""`trimtab train RECIPE`: a model trained as the recipe says, as a Hugging Face folder. Words only."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trimtab.cli.console import say, stages
from trimtab.cli.job_file import Cluster, job_file, refuse_flags
from trimtab.cli.output import emit_document, emit_json, emit_path
from trimtab.spec.units import format_count, format_duration

if TYPE_CHECKING:
    from trimtab.optimization.train import Trained
    from trimtab.optimization.training import Training

KEEP, HANG_SECONDS = 2, 60.0


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
    if emit is not None:
        refuse_flags({"--fresh": fresh, "--output": output, "--on": on, "--json": as_json})
        flags: dict[str, object] = {
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
        _emit(cluster, recipe, processes, layout, flags)
        return
    from trimtab.optimization.train import train as run

    # Schedulers end a job with SIGTERM; it means what Ctrl-C means.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with stages() as show:
        done = run(
            recipe,
            processes=processes,
            layout=layout,
            fresh=fresh,
            output=output,
            on=on,
            restarts=restarts or 0,
            hang_seconds=hang_seconds,
            keep=keep,
            keep_best=keep_best,
            accept_changes=accept_changes,
            log=log,
            tensorboard=tensorboard,
            mlflow=mlflow,
            profile=profile,
            progress=show,
        )
    if done is not None:
        _show(done, as_json=as_json)


def _emit(
    cluster: Cluster, path: Path, processes: str | None, layout: str | None, flags: dict[str, object]
) -> None:
    from trimtab.optimization.train import laid_out, process_range
    from trimtab.spec.recipe import Recipe

    recipe = Recipe.load(path)
    _, most = process_range(processes)
    shared = laid_out(recipe, most, layout)
    emit_document(job_file(cluster, path, shared, processes=most, flags={"--processes": most} | flags))


def _show(done: Trained, *, as_json: bool) -> None:
    if done.traces:
        say(f"traces are in {done.traces}")
    if as_json:
        emit_json(done)
        return
    result = done.training
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
    emit_path(Path(done.model))


def _prediction(result: Training) -> str:
    """How long a step was expected to take, on a machine that was calibrated."""
    if result.predicted_step_seconds is None or result.step_seconds is None:
        return ""
    predicted, measured = (format_duration(s) for s in (result.predicted_step_seconds, result.step_seconds))
    return f"; a step took {measured}, {predicted} predicted"
