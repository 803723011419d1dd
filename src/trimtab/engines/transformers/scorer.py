"""Full logits from transformers: the reference that builds are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.engines.transformers.model import load_model
from trimtab.spec.serving import WeightFormat


class TransformersScorer:
    """`engines.scorers.Scorer` on an artifact. The forward pass is transformers' own: no cache, no mask of ours."""

    def __init__(self, artifact: Path, *, weight_format: WeightFormat = "float32") -> None:
        self._model, _ = load_model(artifact, weight_format)

    @torch.inference_mode()
    def logits(self, tokens: NDArray[np.integer]) -> NDArray[np.float32]:
        """Token ids (batch, length) → logits (batch, length, vocabulary) float32."""
        ids = torch.from_numpy(np.ascontiguousarray(tokens, np.int64)).to(self._model.device)
        return self._model(input_ids=ids, use_cache=False).logits.float().cpu().numpy()
