"""`train`: a model trained as the recipe says, as a Hugging Face folder. Resumes what was cut off.

It works in the recipe's run folder, so `optimize` with the same recipe goes on with the model trained here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, get_args

import msgspec

from trimtab.optimization.baseline import take_baseline
from trimtab.optimization.beginning import fitted, locate, prepare_data, prepare_pictures, settle
from trimtab.optimization.data_fits_model import check_amounts, check_tables
from trimtab.optimization.laying_out import choose_layout
from trimtab.optimization.training import RunOptions, Trainer, Training
from trimtab.optimization.workspace import Workspace
from trimtab.parallel.launching.choice import Launch
from trimtab.parallel.launching.start import under_torchrun
from trimtab.parallel.launching.watch import HANG_SECONDS
from trimtab.spec.checks import check_between, check_one_of
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, check_layout, parse_layout
from trimtab.spec.progress import OnEvent, silent
from trimtab.spec.recipe import Recipe
from trimtab.store.store import Store
from trimtab.training.job import Watching

Where = Literal["local", "torchrun", "ray"]
KEEP = 2
MOST_PROCESSES = 999_999


class Trained(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is a folder that stock transformers loads. `traces`: the folder of a profile, if one was asked for."""

    model: str
    training: Training
    traces: str | None = None


def train(
    recipe: Recipe | Path | str,
    *,
    processes: int | str | None = None,
    layout: Layout | str | None = None,
    fresh: bool = False,
    output: Path | str | None = None,
    on: Where | None = None,
    restarts: int = 0,
    hang_seconds: float = HANG_SECONDS,
    keep: int = KEEP,
    keep_best: bool = False,
    accept_changes: bool = False,
    log: Path | str | None = None,
    tensorboard: Path | str | None = None,
    mlflow: str | None = None,
    profile: bool = False,
    home: Path | None = None,
    progress: OnEvent = silent,
) -> Trained | None:
    """Prepare the data, train over several processes, save a folder that stock transformers loads.

    `recipe`, or its file. `processes` share every batch (on Ray also `"FEWEST:MOST"`), or `layout` says how the model
    is laid out over them; default: the recipe's. `fresh` starts over instead of going on from the last checkpoint.
    `output`: where the run keeps its files. `on`: where processes run; torchrun if it started this, else here.
    `restarts`: how often to start again after a process died, or gave no sign for `hang_seconds`. `keep` last
    checkpoints stay, and with `keep_best` that of lowest held-out loss. `accept_changes` goes on from a checkpoint of
    another model, tokenizer, data or recipe (another length, say). `log` (JSON lines), `tensorboard` (a folder) and
    `mlflow` (an address) get figures of every step; `profile` traces a few.

    Ctrl-C (`KeyboardInterrupt`) saves a checkpoint; the same call goes on from it. Returns None in processes that
    torchrun started to follow the first.
    Raises `RecipeError`, `DataError`, `ModelError`, `UsageError` and `NotFoundError` for what is wrong before anything
    starts, `RankLostError` for a process that died or hung, `RefusedError` while another process works on this run.
    """
    wanted = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    least, most = process_range(processes)
    shared = laid_out(wanted, most, layout)
    check_one_of(on, get_args(Where), "--on")
    for value, low, flag in (
        (restarts, 0, "--restarts"),
        (hang_seconds, 2, "--hang-seconds"),
        (keep, 1, "--keep"),
    ):
        check_between(value, low, 10**9, flag)
    where: Where = on or ("torchrun" if under_torchrun() else "local")
    if where == "torchrun" and _followed(hang_seconds):
        return None
    launch = Launch(on=where, restarts=restarts, least=least, hang_seconds=hang_seconds)
    watching = Watching(log=_absolute(log), tensorboard=_absolute(tensorboard), mlflow=mlflow)
    options = RunOptions(keep=keep, keep_best=keep_best, accept_changes=accept_changes, watching=watching)
    store, folder = Store(home), None if output is None else Path(output)
    # A folder that was named may lie on storage that other machines see, where a scheduler moves the run.
    with Workspace(
        wanted, folder, store.home, anywhere=folder is not None, accept_changes=accept_changes
    ) as workspace:
        if fresh and not _started_again():
            workspace.start_over()
        traces = str(workspace.folder / "profile") if profile else None
        watching = msgspec.structs.replace(watching, profile=traces)
        options = msgspec.structs.replace(options, watching=watching)
        model, training = _train(_as_started(shared, where), workspace, store, launch, options, progress)
    return Trained(model=str(model), training=training, traces=traces)


def laid_out(recipe: Recipe, processes: int | None, layout: Layout | str | None) -> Recipe:
    """The recipe under another layout. How the work is shared is no part of what is asked: the run stays the same."""
    if layout is not None and processes is not None:
        raise UsageError(
            "--processes N is short for --layout data=N.", where="--processes", remedy="Use one of the two."
        )
    if layout is not None:
        where = "--layout"
        found = parse_layout(layout, where=where) if isinstance(layout, str) else layout
        return recipe.model_copy(update={"parallel": check_layout(found, where=where)})
    return recipe if processes is None else recipe.model_copy(update={"parallel": Layout(data=processes)})


def process_range(processes: int | str | None) -> tuple[int | None, int | None]:
    """`4` → (None, 4); `"2:4"` → (2, 4). Raises `UsageError`."""
    if processes is None:
        return None, None
    found = re.fullmatch("(?:([1-9][0-9]{0,5}):)?([1-9][0-9]{0,5})", str(processes))
    least, most = (int(part) if part else None for part in found.groups()) if found else (None, 0)
    if not most or (least or 0) > most:
        raise UsageError(
            f"{str(processes)!r} is no number of processes.",
            where="--processes",
            remedy="Such as 4, or 2:4 on Ray.",
        )
    return least, most


def _train(
    recipe: Recipe,
    workspace: Workspace,
    store: Store,
    launch: Launch,
    options: RunOptions,
    progress: OnEvent,
) -> tuple[Path, Training]:
    """A model from its architecture, or the recipe's model trained on."""
    ready = locate(recipe, store)
    recipe = settle(recipe, ready)
    check_tables(recipe, ready, progress)
    prepare = prepare_pictures if recipe.task == "image-classification" else prepare_data
    data = prepare(recipe, workspace, ready)
    check_amounts(recipe, data, ready, progress)
    if launch.on == "local":
        recipe = choose_layout(recipe, workspace, data, ready, store.home, progress)
    with Trainer(recipe, workspace, data, launch=launch, options=options, home=store.home) as trainer:
        if ready is None:
            baseline = take_baseline(recipe, workspace, data, None, trainer, progress)
            if baseline.trained is not None:
                return baseline.path, baseline.trained
        else:
            folder = workspace.folder / "models" / "trained"

            def train_on() -> Training:
                model = fitted(recipe, workspace, data, ready, progress)
                job = trainer.job(model, folder, trainer.length(model), schedule=trainer.schedule_of_ready)
                return trainer.train("the model", job, progress)

            return folder, workspace.step("trained", Training, train_on)
    raise TypeError("a baseline made from an architecture was trained")


def _as_started(recipe: Recipe, where: Where) -> Recipe:
    """Under torchrun a recipe that leaves the layout open takes as many replicas as there are processes."""
    if where != "torchrun" or recipe.parallel != "auto":
        return recipe
    return recipe.model_copy(update={"parallel": Layout(data=int(os.environ["WORLD_SIZE"]))})


def _absolute(path: Path | str | None) -> str | None:
    """Processes elsewhere have other working folders."""
    return str(Path(path).resolve()) if path else None


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
