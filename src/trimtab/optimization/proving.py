"""From measurements to a verdict: rows with their figures, the decision, the winner published."""

from __future__ import annotations

import msgspec

from trimtab.data.prepared import Prepared
from trimtab.engines.builds import ensure_build, weights_bytes
from trimtab.optimization.baseline import Baseline
from trimtab.optimization.judge import Contender, Decision, decide, load_at, pareto
from trimtab.optimization.measuring import Measurements
from trimtab.optimization.publishing import publish
from trimtab.optimization.subject import Subject
from trimtab.optimization.workspace import Workspace
from trimtab.spec.architectures import Architecture
from trimtab.spec.clock import now
from trimtab.spec.hardware import this_machine
from trimtab.spec.measures import Estimate
from trimtab.spec.recipe import Recipe
from trimtab.spec.verdict import Candidate, Interval, Verdict, Winner, WinnerQuality
from trimtab.spec.version import __version__
from trimtab.store.store import Store
from trimtab.store.version import Version

CONTENDING = ("candidate", "int8_only")
BASELINE_ALIAS = "baseline"


def prove(
    recipe: Recipe,
    workspace: Workspace,
    store: Store,
    baseline: Baseline,
    measured: Measurements,
    data: Prepared,
) -> Verdict:
    """Gates, front, winner; publishes the winner, and a baseline that we trained."""
    candidates = {s.name: _figures(s, measured, store) for s in measured.subjects}
    decision = decide(
        recipe, [_contender(recipe, candidates[s.name], measured) for s in _contending(measured)]
    )
    candidates |= {candidate.name: candidate for candidate in decision.candidates}
    candidates = _with_front(recipe, candidates)
    winner = _publish(recipe, workspace, store, baseline, measured, data, candidates, decision)
    first = next(s.name for s in measured.subjects if s.role == "baseline")
    return Verdict(
        feasible=winner is not None,
        name=recipe.name,
        baseline=candidates[first],
        controls=tuple(c for c in candidates.values() if c.role in ("control", "from_scratch")),
        candidates=tuple(c for c in candidates.values() if c.role in CONTENDING),
        winner=winner,
        reasons=decision.reasons,
        nearest=decision.nearest,
        noise=_interval(measured.speeds.noise),
        ngrams=measured.qualities.ngrams,
        hardware=this_machine(),
        recipe_digest=recipe.digest(),
        trimtab_version=__version__,
        created=now(),
        seconds=workspace.seconds,
        run=str(workspace.folder),
    )


def _contending(measured: Measurements) -> list[Subject]:
    return [s for s in measured.subjects if s.role in CONTENDING]


def _figures(subject: Subject, measured: Measurements, store: Store) -> Candidate:
    bare = subject.candidate(
        weights_bytes=weights_bytes(ensure_build(subject.path, subject.serving, store.home))
    )
    return msgspec.structs.replace(
        bare,
        serving=measured.speeds.servings.get(subject.name, subject.serving),
        quality=measured.qualities.qualities[subject.name],
        speed=measured.speeds.speeds.get(subject.name),
    )


def _contender(recipe: Recipe, candidate: Candidate, measured: Measurements) -> Contender:
    return Contender(
        candidate=candidate,
        quality_ratio=measured.qualities.over_control[candidate.name],
        speedup=measured.speeds.over_baseline[candidate.name][recipe.traffic.concurrency],
        noise=measured.speeds.noise,
    )


def _with_front(recipe: Recipe, candidates: dict[str, Candidate]) -> dict[str, Candidate]:
    """Marks the Pareto front among the rows that have both a speed and a quality."""
    level = recipe.traffic.concurrency
    points = {
        c.name: (load_at(c, level).tokens_per_second.value, c.quality.perplexity.value)
        for c in candidates.values()
        if c.speed is not None and c.quality is not None
    }
    front = {name for name, on in zip(points, pareto(list(points.values())), strict=True) if on}
    return {name: msgspec.structs.replace(c, pareto=name in front) for name, c in candidates.items()}


def _publish(
    recipe: Recipe,
    workspace: Workspace,
    store: Store,
    baseline: Baseline,
    measured: Measurements,
    data: Prepared,
    candidates: dict[str, Candidate],
    decision: Decision,
) -> Winner | None:
    if decision.winner is None:
        return None
    common = {"recipe_digest": recipe.digest(), "data_digest": data.digest}
    if isinstance(recipe.model, Architecture):
        # It exists nowhere else, and a rollback needs something to go back to. The winner comes after: it is newest.
        first = next(c for c in candidates.values() if c.role == "baseline")
        workspace.step(
            "published-baseline",
            Version,
            lambda: publish(
                store,
                workspace,
                recipe.name,
                baseline.path,
                first,
                parent=None,
                aliases=(BASELINE_ALIAS,),
                **common,
            ),
        )
    subject = next(s for s in measured.subjects if s.name == decision.winner)
    candidate = candidates[decision.winner]
    parent = baseline.content_digest
    version = workspace.step(
        "published-winner",
        Version,
        lambda: publish(store, workspace, recipe.name, subject.path, candidate, parent=parent, **common),
    )
    return _winner(recipe, candidate, version.version, candidates, measured)


def _interval(estimate: Estimate) -> Interval:
    return (estimate.low, estimate.high)


def _winner(
    recipe: Recipe,
    candidate: Candidate,
    version: int,
    candidates: dict[str, Candidate],
    measured: Measurements,
) -> Winner:
    speeds, quality = measured.speeds, candidate.quality
    first = next(c for c in candidates.values() if c.role == "baseline")
    if quality is None or candidate.speed is None or first.speed is None:
        raise ValueError("a winner and its baseline have been measured")
    return Winner(
        name=recipe.name,
        version=version,
        candidate=candidate.name,
        task="text-generation",
        speedup=speeds.over_baseline[candidate.name],
        speedup_over_int8=speeds.over_int8[candidate.name],
        quality=WinnerQuality(
            metric="perplexity",
            ratio=quality.perplexity_ratio,
            ratio_to_control=measured.qualities.over_control[candidate.name],
            metrics=quality.figures(),
        ),
        weights_bytes_ratio=candidate.weights_bytes / first.weights_bytes,
        memory_ratio=candidate.speed.memory_bytes / first.speed.memory_bytes,
    )
