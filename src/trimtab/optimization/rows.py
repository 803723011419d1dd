"""The rows of a verdict: baseline, control, int8-only, every candidate in every format. Pure."""

from __future__ import annotations

from trimtab.optimization.baseline import Baseline
from trimtab.optimization.recovery import Recovered
from trimtab.optimization.search import Search
from trimtab.optimization.shaping import formats
from trimtab.optimization.subject import Role, Subject, serving
from trimtab.spec.recipe import Recipe
from trimtab.spec.serving import WeightFormat

BASELINE_FORMAT: WeightFormat = "bf16"


def rows(recipe: Recipe, baseline: Baseline, search: Search) -> list[Subject]:
    """What is built and measured, baseline first. Low bits of the baseline are candidates too where no shape is."""
    trained = baseline.trained.tokens if baseline.trained else 0
    first = Subject(
        name="baseline",
        role="baseline",
        folder=baseline.folder,
        serving=serving(BASELINE_FORMAT),
        steps=(baseline.origin,),
        trained_tokens=trained,
    )
    subjects = [first, *_low_bits(recipe, first)]
    recovery = search.recovery
    if recovery is None:
        return subjects
    subjects.append(_trained(recovery.control, "control", BASELINE_FORMAT, trained, is_loaded=False))
    for finalist, student in zip(search.finalists, recovery.students, strict=True):
        for bits in formats(recipe) or (BASELINE_FORMAT,):
            row = _trained(student, "candidate", bits, trained, quick_perplexity=finalist.report.perplexity)
            subjects.append(row)
    if recovery.from_scratch:
        bits = (*formats(recipe), BASELINE_FORMAT)[0]
        subjects.append(_trained(recovery.from_scratch, "from_scratch", bits, 0, is_loaded=False))
    return subjects


def _low_bits(recipe: Recipe, first: Subject) -> list[Subject]:
    found = []
    for bits in formats(recipe):
        role: Role = "int8_only" if bits == "int8" else "candidate"
        found.append(
            Subject(
                name=f"baseline-{bits}",
                role=role,
                folder=first.folder,
                serving=serving(bits),
                steps=(*first.steps, f"weights in {bits}"),
                trained_tokens=first.trained_tokens,
            )
        )
    return found


def _trained(
    what: Recovered,
    role: Role,
    bits: WeightFormat,
    before: int,
    *,
    is_loaded: bool = True,
    quick_perplexity: float | None = None,
) -> Subject:
    return Subject(
        name=what.name if role in ("control", "from_scratch") else f"{what.name}-{bits}",
        role=role,
        folder=what.folder,
        serving=serving(bits),
        steps=(*what.steps, f"weights in {bits}"),
        trained_tokens=before + what.trained.tokens,
        quick_perplexity=quick_perplexity,
        is_loaded=is_loaded,
    )
