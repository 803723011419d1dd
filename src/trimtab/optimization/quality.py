"""Quality of every build that will be served, against the baseline in transformers float32, on the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.data.prepared import Prepared
from trimtab.engines.scorers import scorer
from trimtab.evaluation import ngrams
from trimtab.evaluation.folders import degenerate_fraction
from trimtab.evaluation.quality import REFERENCE, compare
from trimtab.evaluation.windows import spread
from trimtab.models.info import inspect
from trimtab.optimization.subject import Subject
from trimtab.spec.hardware import usable_cores
from trimtab.spec.measures import Estimate, Quality
from trimtab.spec.serving import ServingConfiguration

# Tokens of the test split that are scored, spread evenly over it: a few thousand windows settle a perplexity.
MOST_TOKENS = 32_768


class Qualities(msgspec.Struct, frozen=True, kw_only=True):
    """By row. `over_control` is perplexity ÷ the better of baseline and control; `better` says which that was.

    `ngrams` are perplexities of the same windows under count models of the train split.
    """

    qualities: dict[str, Quality]
    over_control: dict[str, Estimate]
    better: str
    reference: Estimate
    ngrams: dict[str, float]
    resampled: str


def scored_windows(data: Prepared, length: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Non-overlapping windows and their files, at most `MOST_TOKENS`, evenly spread."""
    windows, files = data.windows("test", length)
    chosen = spread(len(windows), MOST_TOKENS // length)
    return windows[chosen], files[chosen]


def measure_quality(
    subjects: Sequence[Subject],
    data: Prepared,
    length: int,
    home: Path,
    on_progress: Callable[[float], None] | None = None,
) -> Qualities:
    """Score every row's build on the same windows. Expects one row of role baseline."""
    windows, files = scored_windows(data, length)
    threads = len(usable_cores())
    baseline = next(s for s in subjects if s.role == "baseline")
    reference = scorer(
        baseline.path, ServingConfiguration(engine="transformers", weight_format="float32"), home, threads
    )
    builds = {s.name: scorer(s.path, s.serving, home, threads) for s in subjects}
    found = compare(reference, builds, windows, files, on_progress=on_progress)
    info = inspect(baseline.path)
    controls = [s.name for s in subjects if s.role == "control"]
    better = min((REFERENCE, *controls), key=lambda name: found.perplexity(name).value)
    return Qualities(
        qualities={
            name: found.quality(
                name, degenerate=degenerate_fraction(build, windows, info.eos_ids, longest=info.context)
            )
            for name, build in builds.items()
        },
        over_control={name: found.perplexity_ratio(name, better) for name in builds},
        better=better,
        reference=found.perplexity(REFERENCE),
        ngrams=_ngrams(data, windows),
        resampled=found.resampled,
    )


def _ngrams(data: Prepared, windows: NDArray[np.int32]) -> dict[str, float]:
    if not data.record.tokens.get("train"):
        return {}
    return ngrams.fit(data.tokens("train"), data.vocabulary).perplexities(windows)
