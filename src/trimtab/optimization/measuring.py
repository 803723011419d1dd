"""All measuring of a run: builds first, then speed under load on a quiet machine, then quality. Each a step."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trimtab.data.prepared import Prepared
from trimtab.engines.builds import ensure_builds
from trimtab.models.info import inspect
from trimtab.optimization.quality import Qualities, measure_quality
from trimtab.optimization.speed import Speeds, choose_plans, load_events, measure_speeds
from trimtab.optimization.subject import Subject
from trimtab.optimization.workspace import Workspace
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.recipe import Recipe
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.store import Store


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """Every row with its figures, by name."""

    subjects: tuple[Subject, ...]
    speeds: Speeds
    qualities: Qualities


def measure_all(
    recipe: Recipe,
    workspace: Workspace,
    store: Store,
    subjects: Sequence[Subject],
    data: Prepared,
    on_event: OnEvent,
) -> Measurements:
    """Nothing else of ours may run meanwhile: training processes are closed before."""
    on_event(Event(stage="build", fraction=0.0, note=f"{len(subjects)} builds"))
    ensure_builds([(s.path, s.serving) for s in subjects], store.home)
    loaded = [s for s in subjects if s.is_loaded]
    plans = workspace.step(
        "core-plans",
        dict[str, ServingConfiguration],
        lambda: choose_plans(loaded, recipe.traffic, store.home, load_events("choose core plans", on_event)),
    )
    speeds = workspace.step(
        "speed",
        Speeds,
        lambda: measure_speeds(
            loaded, plans, recipe.traffic, store.home, load_events("measure under load", on_event)
        ),
    )
    length = min(recipe.training.sequence_length, inspect(subjects[0].path).context)
    qualities = workspace.step(
        "quality",
        Qualities,
        lambda: measure_quality(
            subjects,
            data,
            length,
            store.home,
            lambda fraction: on_event(Event(stage="measure quality", fraction=fraction)),
        ),
    )
    return Measurements(subjects=tuple(subjects), speeds=speeds, qualities=qualities)
