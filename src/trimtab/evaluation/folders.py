"""Quality of what a model folder is served as, against a reference folder in transformers float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.engines.scorers import scorer
from trimtab.evaluation import generation
from trimtab.evaluation.quality import REFERENCE, Scorer, compare
from trimtab.evaluation.windows import WINDOW, spread, windows_of
from trimtab.models.info import inspect
from trimtab.models.tables import check_highest, check_length
from trimtab.spec.measures import Estimate, Quality
from trimtab.spec.recipe_data import Source
from trimtab.spec.serving import ServingConfiguration

TOKENS = 65_536
BUILD = "build"
SAMPLES, SAMPLE_PROMPT_TOKENS, SAMPLE_TOKENS = 16, 32, 48


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """`reference_perplexity` is that of the reference folder; `resampled` says what the intervals draw."""

    folder: str
    reference: str
    serving: ServingConfiguration
    quality: Quality
    reference_perplexity: Estimate
    resampled: Literal["files", "stretches of text"]
    window_tokens: int


def evaluate(
    folder: Path,
    source: Source,
    *,
    serving: ServingConfiguration,
    home: Path,
    against: Path | None = None,
    length: int | None = None,
    threads: int = 1,
    on_progress: Callable[[float], None] | None = None,
    on_warning: Callable[[str], None] | None = None,
) -> Evaluation:
    """Compare the build that `serving` names with the folder itself, or with `against`, on a source's text."""
    reference = against or folder
    info, other = inspect(folder), inspect(reference)
    windows, documents = windows_of(source, folder, tokens=TOKENS, length=length, on_warning=on_warning)
    if against is not None:
        check_highest(against, int(windows.max()))
        check_length(against, windows.shape[1], where=WINDOW)
    build = scorer(folder, serving, home, threads)
    plain = ServingConfiguration(engine="transformers", weight_format="float32")
    found = compare(
        scorer(reference, plain, home, threads), {BUILD: build}, windows, documents, on_progress=on_progress
    )
    return Evaluation(
        folder=str(folder),
        reference=str(reference),
        serving=serving,
        quality=found.quality(
            BUILD,
            degenerate=degenerate_fraction(
                build, windows, info.eos_ids, longest=min(info.context, other.context)
            ),
        ),
        reference_perplexity=found.perplexity(REFERENCE),
        resampled=found.resampled,
        window_tokens=windows.shape[1],
    )


def degenerate_fraction(
    build: Scorer, windows: NDArray[np.integer], eos_ids: tuple[int, ...], *, longest: int
) -> float:
    """The share of sampled continuations of real text that are empty or loop; no text is longer than `longest`."""
    prompt = min(SAMPLE_PROMPT_TOKENS, max(1, longest // 2))
    prompts = windows[spread(len(windows), SAMPLES), :prompt]
    answers = generation.sample(build.logits, prompts, min(SAMPLE_TOKENS, longest - prompts.shape[1]))
    return generation.fraction_degenerate(answers.tolist(), eos_ids)
