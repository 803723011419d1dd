"""What a build did on held-out text, token by token, summed per file. Pure numpy: knows logits, not engines.

Sums per file are all that is kept, so memory does not grow with the text, every figure can be resampled by
files, and ratios between any two builds are paired.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.spec.errors import EngineError, ModelError

Floats = NDArray[np.float32]
# Bin edges of a token's KL in nats: 2.3 % apart, from what float32 can tell from zero to more than can occur.
KL_EDGES = np.concatenate(([0.0], np.geomspace(1e-8, 1e2, 1000)))
# Tokens are taken in slices of about this many logits, so that temporaries stay in a core's cache.
_SLICE = 1 << 17


class Tokens(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Statistics of T tokens, each (T,) float64: negative log-likelihood and KL in nats, the rest 0 or 1.

    `worse`: the reference's top choice was right and the build's was not; `better`: the other way round.
    """

    reference_nll: NDArray[np.float64]
    nll: NDArray[np.float64]
    kl: NDArray[np.float64]
    agree: NDArray[np.float64]
    worse: NDArray[np.float64]
    better: NDArray[np.float64]


class PerFile(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Sums over the tokens of each of F groups: (F,) float64, and `kl_histogram` (F, bins of `KL_EDGES`)."""

    tokens: NDArray[np.float64]
    nll: NDArray[np.float64]
    kl: NDArray[np.float64]
    agree: NDArray[np.float64]
    worse: NDArray[np.float64]
    better: NDArray[np.float64]
    kl_histogram: NDArray[np.float64]

    @classmethod
    def empty(cls, groups: int) -> PerFile:
        zeros = {name: np.zeros(groups) for name in cls.__struct_fields__ if name != "kl_histogram"}
        return cls(**zeros, kl_histogram=np.zeros((groups, len(KL_EDGES) - 1)))

    def add(self, groups: NDArray[np.integer], scored: Tokens) -> None:
        """Adds T tokens; `groups` (T,) says which group each belongs to."""
        count = len(self.tokens)
        self.tokens[:] += np.bincount(groups, minlength=count)
        for name in ("nll", "kl", "agree", "worse", "better"):
            getattr(self, name)[:] += np.bincount(groups, getattr(scored, name), minlength=count)
        bins = np.clip(np.searchsorted(KL_EDGES, scored.kl, side="right") - 1, 0, len(KL_EDGES) - 2)
        np.add.at(self.kl_histogram, (groups, bins), 1.0)


def _shifted(logits: Floats) -> tuple[Floats, Floats, NDArray[np.float64]]:
    """Logits minus their maximum, the exponentials of that, and the logarithm of their sum (float64)."""
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    return logits, exponentials, np.log(exponentials.sum(axis=1, dtype=np.float64))


def _slice(reference: Floats, build: Floats, targets: NDArray[np.integer]) -> Tokens:
    rows = np.arange(len(targets))
    ours, weights, our_log = _shifted(reference)
    theirs, _, their_log = _shifted(build)
    # KL(p ‖ q) = Σ p (x - y) - (log Σ eˣ - log Σ eʸ): exactly 0 where the logits are the same.
    difference = np.einsum("tv,tv->t", weights, ours - theirs) / np.exp(our_log)
    kl = np.maximum(difference - (our_log - their_log), 0.0)
    ours_top, theirs_top = reference.argmax(axis=1), build.argmax(axis=1)
    ours_right, theirs_right = ours_top == targets, theirs_top == targets
    return Tokens(
        reference_nll=our_log - ours[rows, targets],
        nll=their_log - theirs[rows, targets],
        kl=kl,
        agree=(ours_top == theirs_top).astype(np.float64),
        worse=(ours_right & ~theirs_right).astype(np.float64),
        better=(~ours_right & theirs_right).astype(np.float64),
    )


def score(
    reference: Floats, build: Floats, targets: NDArray[np.integer], *, name: str = "the build"
) -> Iterator[tuple[slice, Tokens]]:
    """Statistics of T tokens from both sides' logits, (T, vocabulary) float32, slice by slice.

    Raises `ModelError` where the vocabularies differ and `EngineError` where logits are not finite.
    """
    if reference.shape != build.shape:
        raise ModelError(
            f"{name} has a vocabulary of {build.shape[1]}, the reference one of {reference.shape[1]}.",
            where="evaluation",
            remedy="Compare models that share a tokenizer.",
        )
    step = max(1, _SLICE // reference.shape[1])
    for start in range(0, len(targets), step):
        part = slice(start, min(start + step, len(targets)))
        scored = _slice(reference[part], build[part], targets[part])
        if not (np.isfinite(scored.nll).all() and np.isfinite(scored.kl).all()):
            raise EngineError(
                f"{name} gave logits that are not finite.",
                where="evaluation",
                remedy="Its weights or its weight format are broken; build it again in float32 and compare.",
            )
        yield part, scored
