"""The scorers that evaluation uses: full logits of the build that will be served.

The engine that computes them is imported when a scorer is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.engines.scoring import Logits
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import ServingConfiguration


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
