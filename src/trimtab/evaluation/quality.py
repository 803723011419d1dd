"""Quality of builds against a reference on the same windows, batch by batch; its intervals resample files.

The reference is scored once per batch and every build right after it, so that memory holds two batches of
logits at most, whatever the text and however many builds. Knows scorers by their one method only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.evaluation.tally import KL_EDGES, PerFile, Tokens, score
from trimtab.spec.errors import DataError
from trimtab.spec.measures import Estimate, Quality
from trimtab.stats import bootstrap

LOGITS_BYTES = 64 * 2**20
# With fewer files than this, a bootstrap over files says little; stretches of their text are drawn instead.
FEWEST_FILES = 10
_STRETCHES = 24
REFERENCE = "reference"
Integers = NDArray[np.integer]


class Scorer(Protocol):
    """What scores: token ids (batch, length) → logits (batch, length, vocabulary) float32."""

    def logits(self, tokens: Integers) -> NDArray[np.float32]: ...


class Comparison(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Sums per group of the reference and of every build, by name. `resampled` says what the groups are.

    All figures use the same draws, so that a ratio of two builds is paired.
    """

    builds: dict[str, PerFile]
    resampled: Literal["files", "stretches of text"]

    def perplexity(self, name: str) -> Estimate:
        sums = self.builds[name]
        return bootstrap.perplexity(sums.nll, sums.tokens)

    def perplexity_ratio(self, name: str, against: str) -> Estimate:
        """Perplexity of `name` ÷ perplexity of `against`, with its paired interval. Above 1 is worse."""
        ours, theirs = self.builds[name], self.builds[against]
        return bootstrap.perplexity_ratio(ours.nll, theirs.nll, ours.tokens)

    def quality(self, name: str, *, degenerate: float = 0.0) -> Quality:
        """All figures of one build. `degenerate` comes from `evaluation.generation`."""
        sums = self.builds[name]

        def _share(values: NDArray[np.float64]) -> Estimate:
            return bootstrap.ratio_of_sums(values, sums.tokens)

        return Quality(
            perplexity=self.perplexity(name),
            perplexity_ratio=self.perplexity_ratio(name, REFERENCE),
            kl_mean=_share(sums.kl),
            kl_p99=bootstrap.percentile(sums.kl_histogram, KL_EDGES, 0.99),
            top1_agreement=_share(sums.agree),
            flips_worse=_share(sums.worse),
            flips_better=_share(sums.better),
            degenerate=degenerate,
            tokens=int(sums.tokens.sum()),
        )


def group(files: Integers) -> tuple[Integers, Literal["files", "stretches of text"]]:
    """What the bootstrap draws, per window, numbered from 0: its file or, with few files, a stretch of text.

    Resampling one file would give an interval of no width, which would be a lie. A stretch is a run of
    neighbouring windows of one file, since neighbours depend on each other.
    """
    _, numbers = np.unique(files, return_inverse=True)
    if numbers.max() + 1 >= FEWEST_FILES:
        return numbers, "files"
    longest = max(1, len(files) // _STRETCHES)
    place = np.zeros(len(files), dtype=np.int64)
    for file in range(numbers.max() + 1):
        inside = numbers == file
        place[inside] = np.arange(inside.sum()) // longest
    _, stretches = np.unique(numbers * (len(files) + 1) + place, return_inverse=True)
    return stretches, "stretches of text"


def _check(windows: Integers, files: Integers) -> None:
    if windows.ndim != 2 or windows.shape[1] < 2 or not len(windows):
        raise DataError(
            "there is no whole window of test text.",
            where="evaluation",
            remedy="Give more test text, or evaluate with shorter windows.",
        )
    if files.shape != windows.shape[:1]:
        raise ValueError(f"{len(windows)} windows but {len(files)} file numbers")


def compare(
    reference: Scorer,
    builds: Mapping[str, Scorer],
    windows: Integers,
    files: Integers,
    *,
    logits_bytes: int = LOGITS_BYTES,
    on_progress: Callable[[float], None] | None = None,
) -> Comparison:
    """Score the reference and every build on the same windows.

    `windows` (n, length) token ids, non-overlapping; `files` (n,) the file of each window. A token is
    predicted from those before it in its window, so the first of each window is not counted. A batch has as
    many windows as fit `logits_bytes` of logits, at least one.
    """
    _check(windows, files)
    groups, resampled = group(files)
    sums = {name: PerFile.empty(int(groups.max()) + 1) for name in (REFERENCE, *builds)}
    start, rows = 0, 1
    while start < len(windows):
        batch = windows[start : start + rows]
        targets = batch[:, 1:].reshape(-1)
        belongs = np.repeat(groups[start : start + rows], batch.shape[1] - 1)
        truth = _predictions(reference, batch)
        for part, same in score(truth, truth, targets, name=REFERENCE):
            sums[REFERENCE].add(belongs[part], same)
        for name, build in builds.items():
            for part, scored in score(truth, _predictions(build, batch), targets, name=name):
                sums[name].add(belongs[part], scored)
        first, start = start == 0, start + len(batch)
        # The vocabulary is known from the first answer on, and with it how many windows fit.
        rows = max(1, logits_bytes // (truth.shape[1] * 4 * batch.shape[1]))
        # The first batch is small and pays for warming up, so it would forecast far too long.
        if on_progress and (not first or start == len(windows)):
            on_progress(start / len(windows))
    return Comparison(builds=sums, resampled=resampled)


def _predictions(scorer: Scorer, batch: Integers) -> NDArray[np.float32]:
    """Logits that predict tokens 1 … length-1 of each window: (batch · (length - 1), vocabulary)."""
    logits = scorer.logits(batch)
    return logits[:, :-1].reshape(-1, logits.shape[-1])


__all__ = ["REFERENCE", "Comparison", "PerFile", "Scorer", "Tokens", "compare", "group"]
