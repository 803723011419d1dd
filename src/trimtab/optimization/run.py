"""The main job: `optimize(recipe) -> Verdict`. Reads as the sentence it is; each step keeps its result.

Interrupted at any moment, the same recipe goes on where it was. What is measured is the build that will be served.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.data.prepared import Prepared
from trimtab.optimization.baseline import Baseline, take_baseline
from trimtab.optimization.beginning import locate, prepare_data, refuse_other_tasks
from trimtab.optimization.data_fits_model import check_amounts, check_tables
from trimtab.optimization.laying_out import choose_layout
from trimtab.optimization.measuring import measure_all
from trimtab.optimization.proving import prove
from trimtab.optimization.publishing import attach_records
from trimtab.optimization.recovery import extra_tokens, recover, train_from_scratch
from trimtab.optimization.report.page import write_report
from trimtab.optimization.request import expected_time, recipe_of
from trimtab.optimization.rows import rows
from trimtab.optimization.search import Search, curves
from trimtab.optimization.shaping import choose_finalists, cut_candidates, time_candidates
from trimtab.optimization.training import Trainer
from trimtab.optimization.workspace import Workspace
from trimtab.spec.progress import Event, OnEvent, silent
from trimtab.spec.recipe import Recipe
from trimtab.spec.recipe_data import Source
from trimtab.spec.verdict import Verdict
from trimtab.store.store import Store

STAGE = "optimize"


def optimize(
    recipe: Recipe | Path | str,
    *,
    data: Source | Path | str | None = None,
    name: str | None = None,
    output: Path | str | None = None,
    home: Path | None = None,
    progress: OnEvent | None = None,
) -> Verdict:
    """Search, measure, prove, publish. Returns the verdict, feasible or not; resumes an interrupted run.

    `recipe`, its file, or a model's folder together with `data` (a text file or `"text:FILE"`) and perhaps a `name` to
    publish under: a folder is optimized without training. `output`: where the run keeps its files.
    Raises what bad input raises (`RecipeError`, `DataError`, `ModelError`, `NotFoundError`, `UsageError`),
    `IntegrityError` for a changed artifact, and `RefusedError` while another process works on the same run.
    """
    report, store = progress or silent, Store(home)
    recipe = recipe_of(recipe, data, name)
    model = locate(recipe, store)
    refuse_other_tasks(recipe, model)
    with Workspace(recipe, None if output is None else Path(output), store.home) as workspace:
        if workspace.verdict is not None:
            ended = f"this run has ended before; showing what it came to ({workspace.folder})"
            report(Event(stage=STAGE, fraction=1.0, remark=ended))
            return workspace.verdict
        if progress is not None:
            report(Event(stage=STAGE, fraction=0.0, remark=expected_time(recipe)))
        return _carry_out(recipe, workspace, store, model, report)


def _carry_out(
    recipe: Recipe, workspace: Workspace, store: Store, model: Path | None, report: OnEvent
) -> Verdict:
    report(Event(stage="prepare the data", fraction=0.0))
    check_tables(recipe, model, report)
    data = prepare_data(recipe, workspace, model)
    trains = model is None or recipe.search.distill_tokens != 0
    check_amounts(recipe, data, model, report, trains=trains, measures=True)
    laid_out = recipe
    if trains:
        laid_out = choose_layout(recipe, workspace, data, model, store.home, report, cut=True)
    with Trainer(laid_out, workspace, data, home=store.home) as trainer:
        baseline = take_baseline(recipe, workspace, data, model, trainer, report)
        search = look(recipe, workspace, store, baseline, data, trainer, report)
    measured = measure_all(recipe, workspace, store, rows(recipe, baseline, search), data, report)
    verdict = prove(recipe, workspace, store, baseline, measured, data)
    write_report(workspace.folder / "report.html", verdict, curves(baseline, search))
    attach_records(store, workspace, verdict)
    workspace.conclude(verdict)
    return verdict


def look(
    recipe: Recipe,
    workspace: Workspace,
    store: Store,
    baseline: Baseline,
    data: Prepared,
    trainer: Trainer,
    report: OnEvent,
) -> Search:
    """Shapes: cut and refit, time on the engine, distil the most promising. Nothing where training is not wanted."""
    if recipe.search.distill_tokens == 0:
        return Search()
    made = cut_candidates(recipe, workspace, baseline, data, report)
    timed = time_candidates(recipe, workspace, baseline, made, store.home, report)
    finalists = choose_finalists(recipe, timed)
    tokens = extra_tokens(recipe, workspace, baseline, finalists, trainer)
    recovery = recover(workspace, baseline, finalists, trainer, tokens, report)
    if recipe.search.from_scratch:
        scratch = train_from_scratch(workspace, baseline, finalists[0], recovery, trainer, report)
        recovery = msgspec.structs.replace(recovery, from_scratch=scratch)
    return Search(tried=tuple(timed), finalists=tuple(finalists), recovery=recovery)
