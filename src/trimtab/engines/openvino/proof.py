"""Proof of an export: the graph must say what the torch model says, before anything is made of it.

What a config can ask for (scaled positions, odd head sizes, biases) is not enumerated; it is checked.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
import torch
from transformers import PreTrainedModel

from trimtab.engines.openvino.runtime import properties
from trimtab.engines.openvino.scorer import Chunks
from trimtab.engines.scoring import log_softmax
from trimtab.models.info import ModelInfo
from trimtab.spec.errors import EngineError

# Nats. Two float32 implementations differ by about 1e-5 per token.
TOLERANCE = 1e-3
_TOKENS, _SEQUENCES = 48, 2


def prove(exported: ov.Model, model: PreTrainedModel, info: ModelInfo) -> float:
    """The largest difference of log-probability on random tokens, fed in two pieces so that the cache counts.

    Raises `EngineError` where it is above `TOLERANCE`.
    """
    length = min(_TOKENS, info.context)
    tokens = np.random.default_rng(0).integers(0, info.vocabulary, (_SEQUENCES, length))
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(tokens), use_cache=False).logits.float().numpy()
    threads = max(1, torch.get_num_threads())
    compiled = ov.Core().compile_model(exported, "CPU", properties("float32", "float32", threads))
    pieces = Chunks(compiled, rows=-(-length // 2)).run(tokens)
    ours = log_softmax(np.concatenate(list(pieces), axis=1))
    theirs = log_softmax(logits)
    picked = (np.arange(_SEQUENCES)[:, None], np.arange(length - 1), tokens[:, 1:])
    difference = float(np.abs(ours[picked] - theirs[picked]).max()) if length > 1 else 0.0
    if not difference <= TOLERANCE:
        raise EngineError(
            f"the exported graph differs from transformers by {difference:.3g} nats per token, so it is not served.",
            where=info.architecture,
            remedy="Use the transformers engine for this model.",
        )
    return difference
