"""Unigram, bigram and trigram models on the same tokens: the yardstick that a trained model has to beat.

Absolute discounting, interpolated (Ney, Essen & Kneser 1994; discount D = 0.75):
p(w|h) = max(c(h,w) - D, 0) / c(h) + D · types(h) / c(h) · p(w|h'), and p(w|h') where h was never seen.
Pure, vectorised; needs no torch.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.spec.errors import DataError

DISCOUNT = 0.75
NAMES = ("unigram", "bigram", "trigram")
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class _Counts(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Counts of one order: sorted keys history · V + word, and per sorted history its total and its kinds."""

    keys: Integers
    counts: Integers
    histories: Integers
    totals: Floats
    kinds: Floats


class NGrams(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Models of order 1 to 3 over a vocabulary of V ids, fitted by `fit`."""

    vocabulary: int
    unigram: Floats
    orders: tuple[_Counts, ...]

    def nll(self, windows: NDArray[np.integer]) -> dict[str, Floats]:
        """Negative log-likelihood in nats by model, (n, length - 1): tokens 1 … length-1 of each window.

        A model sees what a network would see: the window's own earlier tokens. So the trigram predicts
        token 1 as a bigram does.
        """
        ids = windows.astype(np.int64)
        probability = self.unigram[ids[:, 1:]]
        found = {NAMES[0]: -np.log(probability)}
        for order, counts in enumerate(self.orders, start=1):
            history = np.zeros_like(ids[:, order:])
            for back in range(order, 0, -1):
                history = history * self.vocabulary + ids[:, order - back : ids.shape[1] - back]
            known = probability[:, order - 1 :]
            sharper = _interpolate(counts, history, ids[:, order:], known, self.vocabulary)
            probability = np.concatenate([probability[:, : order - 1], sharper], axis=1)
            found[NAMES[order]] = -np.log(probability)
        return found

    def perplexities(self, windows: NDArray[np.integer]) -> dict[str, float]:
        return {name: float(np.exp(nll.mean())) for name, nll in self.nll(windows).items()}


def fit(tokens: NDArray[np.integer], vocabulary: int) -> NGrams:
    """Count 1- to 3-grams in one stream of training tokens. Raises `DataError` with fewer than three tokens."""
    if len(tokens) < 3:
        raise DataError("n-grams need at least three tokens.", where="data.train", remedy="Give more text.")
    if vocabulary >= 1 << 21:  # three ids must fit 63 bits
        raise DataError(f"a vocabulary of {vocabulary} is too large to count n-grams.", where="data.train")
    ids = tokens.astype(np.int64)
    seen = np.bincount(ids, minlength=vocabulary) + 0.5
    orders = (
        _count(ids[:-1], ids[1:], vocabulary),
        _count(ids[:-2] * vocabulary + ids[1:-1], ids[2:], vocabulary),
    )
    return NGrams(vocabulary=vocabulary, unigram=seen / seen.sum(), orders=orders)


def _count(history: Integers, word: Integers, vocabulary: int) -> _Counts:
    keys, counts = np.unique(history * vocabulary + word, return_counts=True)
    histories, inverse = np.unique(keys // vocabulary, return_inverse=True)
    return _Counts(
        keys=keys,
        counts=counts,
        histories=histories,
        totals=np.bincount(inverse, counts).astype(np.float64),
        kinds=np.bincount(inverse).astype(np.float64),
    )


def _find(ordered: Integers, wanted: Integers) -> tuple[Integers, NDArray[np.bool_]]:
    """Index of each wanted key in sorted keys, and whether it is there."""
    index = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return index, ordered[index] == wanted


def _interpolate(
    counts: _Counts, history: Integers, word: Integers, lower: Floats, vocabulary: int
) -> Floats:
    key, together = _find(counts.keys, history * vocabulary + word)
    place, seen = _find(counts.histories, history)
    times = np.where(together, counts.counts[key], 0)
    total = counts.totals[place]
    own = np.maximum(times - DISCOUNT, 0) / total
    return np.where(seen, own + DISCOUNT * counts.kinds[place] / total * lower, lower)
