"""From logits to scores, and the scorers that evaluation uses: full logits of the build that will be served.

Pure numpy here; the engine that computes the logits is imported when a scorer is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.engines.base import Score, Tokens
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import ServingConfiguration

Logits = NDArray[np.float32]
# One piece computes so many tokens at most, and holds so many bytes of logits, so that it stays short.
_PIECE_TOKENS, _PIECE_BYTES = 256, 16 * 2**20


class Scorer(Protocol):
    """Full logits of one build."""

    def logits(self, tokens: NDArray[np.integer]) -> Logits:
        """Token ids (batch, length) → logits (batch, length, vocabulary) float32; position i predicts i + 1."""


def scorer(artifact: Path, serving: ServingConfiguration, home: Path, threads: int = 1) -> Scorer:
    """The scorer of the build that `serving` names; for `openvino` the very files that a worker serves.

    Raises `EngineError` for the mock engine, which has no model, and what making the build raises.
    """
    if serving.engine == "openvino":
        from trimtab.engines.builds import ensure_build
        from trimtab.engines.openvino.scorer import OpenvinoScorer

        return OpenvinoScorer(ensure_build(artifact, serving, home), threads=threads)
    if serving.engine == "transformers":
        from trimtab.engines.transformers.scorer import TransformersScorer

        return TransformersScorer(artifact, weight_format=serving.weight_format)
    raise EngineError(f"the {serving.engine} engine has no model to score with.", where="engine")


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
