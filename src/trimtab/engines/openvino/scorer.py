"""Full logits from a build: the very files that a worker serves, compiled plainly. Must not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trimtab.engines.openvino import names
from trimtab.engines.openvino.runtime import properties
from trimtab.engines.quiet import without_telemetry
from trimtab.engines.record import read_record
from trimtab.engines.scoring import piece_rows

if TYPE_CHECKING:
    import openvino as ov


class Chunks:
    """Runs sequences through a compiled stateful model, `rows` positions at a time."""

    def __init__(self, compiled: ov.CompiledModel, *, rows: int) -> None:
        self._request, self._rows = compiled.create_infer_request(), rows

    def run(self, tokens: NDArray[np.integer]) -> Iterator[NDArray[np.float32]]:
        """Token ids (batch, length) → logits (batch, ≤ rows, vocabulary), in order. One run at a time."""
        self._request.reset_state()
        batch, length = tokens.shape
        mask, positions = np.ones((batch, length), np.int64), np.arange(length, dtype=np.int64)
        for start in range(0, length, self._rows):
            stop = min(start + self._rows, length)
            self._request.infer(
                {
                    names.IDS: np.ascontiguousarray(tokens[:, start:stop], np.int64),
                    names.MASK: mask[:, :stop],
                    names.POSITIONS: np.tile(positions[start:stop], (batch, 1)),
                    names.BEAM: np.arange(batch, dtype=np.int32),
                }
            )
            yield self._request.get_tensor(names.LOGITS).data.astype(np.float32, copy=True)


def compile_plainly(build: Path, threads: int) -> ov.CompiledModel:
    """The build's graph with its KV cache in float32: scores are of the weights, not of the cache."""
    without_telemetry()
    import openvino as ov

    chosen = properties(read_record(build).weight_format, "float32", threads)
    return ov.Core().compile_model(str(build / names.MODEL), "CPU", chosen)


class OpenvinoScorer:
    """`engines.scorers.Scorer` on a build."""

    def __init__(self, build: Path, *, threads: int = 1) -> None:
        self._compiled = compile_plainly(build, threads)
        self._vocabulary = read_record(build).model.vocabulary

    def logits(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Token ids (batch, length) → logits (batch, length, vocabulary) float32."""
        rows = piece_rows(self._vocabulary, max(1, len(tokens)))
        return np.concatenate(list(Chunks(self._compiled, rows=rows).run(tokens)), axis=1)
