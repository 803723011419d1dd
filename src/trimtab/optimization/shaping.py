"""Candidates' shapes: cut and refitted from the baseline, scored on held-out text, timed on the engine, one chosen.

Speed does not depend on what the weights are, so a shape is timed before anything is spent on training it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from trimtab.compression.candidates import relative_cost, shapes
from trimtab.compression.pipeline import PruneReport, prune, removal_order
from trimtab.compression.shapes import Shape
from trimtab.data.prepared import Prepared
from trimtab.evaluation.windows import spread
from trimtab.optimization.baseline import Baseline
from trimtab.optimization.speed import load_events, time_quickly
from trimtab.optimization.subject import Subject, serving
from trimtab.optimization.workspace import Workspace
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Recipe
from trimtab.spec.serving import WeightFormat

CALIBRATION_TOKENS = 16_384
# A grid is thinned to this many shapes by decode cost before any of them is cut.
MOST_SHAPES = 4
# Without a limit on speed: halving the work is about what can be recovered in one go (Minitron's advice).
USUAL_SPEEDUP = 2.0


class Shaped(msgspec.Struct, frozen=True, kw_only=True):
    """A pruned, refitted, untrained candidate. `speedup` is the quick timing's, against the baseline."""

    name: str
    folder: str
    shape: Shape
    report: PruneReport
    relative_cost: float
    speedup: float = 0.0

    @property
    def path(self) -> Path:
        return Path(self.folder)


def shape_name(shape: Shape) -> str:
    return f"layers{len(shape.layers)}-ffn{shape.ffn}-kv{shape.kv_heads}"


def formats(recipe: Recipe) -> tuple[WeightFormat, ...]:
    """Low-bit formats that the search may use, most precise first."""
    methods = recipe.search.methods
    return tuple(bits for bits in ("int8", "int4") if methods == "auto" or bits in methods)


def cut_candidates(
    recipe: Recipe, workspace: Workspace, baseline: Baseline, data: Prepared, on_event: OnEvent
) -> list[Shaped]:
    """Prune and refit each shape of the thinned grid. One step a shape, so that an interrupted run goes on."""
    length = recipe.training.sequence_length
    calibration = data.windows("train", length)[0]
    tokens = calibration[spread(len(calibration), CALIBRATION_TOKENS // length)]
    order = workspace.step("removal-order", list[int], lambda: removal_order(baseline.path, tokens))
    info = baseline.info
    grid = _thin(shapes(info, order, methods=recipe.search.methods, most=1 / aim(recipe)))
    made = []
    for number, shape in enumerate(grid):
        name = shape_name(shape)
        on_event(Event(stage="prune and refit", fraction=number / len(grid), note=name))
        folder = workspace.folder / "models" / name

        def cut(shape: Shape = shape, folder: Path = folder, name: str = name) -> Shaped:
            report = prune(baseline.path, shape, tokens, folder)
            return Shaped(
                name=name,
                folder=str(folder),
                shape=shape,
                report=report,
                relative_cost=relative_cost(info, shape),
            )

        made.append(workspace.step(f"cut-{name}", Shaped, cut))
    return made


def aim(recipe: Recipe) -> float:
    """The speed-up that shapes are chosen for."""
    return recipe.search.speedup or recipe.slo.speedup or USUAL_SPEEDUP


def _thin(grid: Sequence[Shape]) -> list[Shape]:
    """At most `MOST_SHAPES`, evenly spread over the decode costs of what could be fast enough."""
    return [grid[index] for index in spread(len(grid), MOST_SHAPES)] if grid else []


def time_candidates(
    recipe: Recipe,
    workspace: Workspace,
    baseline: Baseline,
    made: Sequence[Shaped],
    home: Path,
    on_event: OnEvent,
) -> list[Shaped]:
    """The same candidates with their quick speed-up, measured under load in the lowest-risk format (int8)."""
    best = (*formats(recipe), "bf16")[0]
    rows = [Subject(name="baseline", role="baseline", folder=baseline.folder, serving=serving("bf16"))]
    rows += [Subject(name=c.name, role="candidate", folder=c.folder, serving=serving(best)) for c in made]

    def measure() -> dict[str, float]:
        on_event(Event(stage="build the shapes", fraction=0.0, note=f"{len(rows)} builds"))
        return time_quickly(rows, recipe.traffic, home, load_events("time the shapes", on_event))

    speedups = workspace.step("quick-speed", dict[str, float], measure)
    return [msgspec.structs.replace(c, speedup=speedups[c.name]) for c in made]


def choose_finalists(recipe: Recipe, timed: Sequence[Shaped]) -> list[Shaped]:
    """Of the shapes that look fast enough those that lost least, then the fastest of the others. Pure.

    "Lost least" is held-out perplexity after the refit, before any training.
    """
    wanted = aim(recipe)
    fast = sorted((c for c in timed if c.speedup >= wanted), key=lambda c: c.report.perplexity)
    others = sorted((c for c in timed if c.speedup < wanted), key=lambda c: -c.speedup)
    return [*fast, *others][: recipe.search.finalists]
