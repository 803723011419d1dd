"""From logits to scores. Pure numpy: which engine computes the logits is not known here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from trimtab.engines.base import Score, Tokens
from trimtab.spec.errors import EngineError

Logits = NDArray[np.float32]
# One piece computes so many tokens at most, and holds so many bytes of logits, so that it stays short.
_PIECE_TOKENS, _PIECE_BYTES = 256, 16 * 2**20


def piece_rows(vocabulary: int, batch: int = 1) -> int:
    """How many positions of each of `batch` texts one piece of a scoring job computes."""
    return max(1, min(_PIECE_TOKENS // batch, _PIECE_BYTES // (4 * vocabulary * batch)))


def log_softmax(logits: Logits) -> Logits:
    """Over the last axis, in float32: shifted by the maximum so that nothing overflows."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def score_pieces(tokens: Tokens, top: int, pieces: Iterable[Logits]) -> Iterator[Score | None]:
    """Score `tokens` (n,) from pieces of its logits, (rows, vocabulary) each, in order, n rows in all."""
    length = len(tokens)
    logprobs = np.full(length, np.nan, np.float32)
    top_ids = np.zeros((length, top), np.int32)
    top_logprobs = np.zeros((length, top), np.float32)
    done = 0
    for piece in pieces:
        # The row at place i speaks of token i + 1, so the last row has nothing to score.
        start, stop = done + 1, min(done + len(piece), length - 1) + 1
        done += len(piece)
        if start < stop:
            rows = log_softmax(piece[: stop - start])
            logprobs[start:stop] = rows[np.arange(stop - start), tokens[start:stop]]
            if top:
                ids = _best(rows, top)
                top_ids[start:stop], top_logprobs[start:stop] = ids, np.take_along_axis(rows, ids, axis=1)
        yield None
    yield Score(logprobs=logprobs, top_ids=top_ids, top_logprobs=top_logprobs)


def _best(rows: Logits, top: int) -> NDArray[np.intp]:
    """Indices of the `top` largest of every row, best first."""
    if top < rows.shape[1]:
        ids = np.argpartition(rows, -top, axis=1)[:, -top:]
    else:
        ids = np.broadcast_to(np.arange(rows.shape[1]), rows.shape).copy()
    order = np.argsort(-np.take_along_axis(rows, ids, axis=1), axis=1, kind="stable")
    return np.take_along_axis(ids, order, axis=1)


def finish(pieces: Iterator[Score | None]) -> Score:
    """Run a scoring job to its end."""
    score = None
    for score in pieces:  # noqa: B007 (the last item is the result)
        pass
    if score is None:
        raise EngineError("a scoring job ended without a score.")
    return score
