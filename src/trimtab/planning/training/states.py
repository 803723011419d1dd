"""Bytes a parameter of weights, gradients and optimizer state, and how each is shared.

Sources: ZeRO (Rajbhandari et al. 2020), table 1; Megatron-LM's bf16 (gradients kept in 32 bits).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from trimtab.planning.training.job import Optimizer, Precision
from trimtab.spec.layout import Layout


class States(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes a parameter. `gathered` is that of a copy in which sharded weights are used."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer


_MOMENTS: Mapping[Optimizer, int] = {"adamw": 8, "muon": 4, "sgd": 4}
# Weights, gradients, and the master copy that goes with the optimizer's moments.
_KEPT: Mapping[Precision, tuple[int, int, int]] = {
    "bf16": (2, 4, 4),
    "fp16": (2, 2, 4),
    "mixed": (4, 4, 0),
    "fp32": (4, 4, 0),
}
# In which replicas sum their gradients.
GRADIENT_BYTES: Mapping[Precision, int] = {precision: kept[1] for precision, kept in _KEPT.items()}


def states(precision: Precision, optimizer: Optimizer, layout: Layout) -> States:
    """Of one rank, per parameter that its tensor and pipeline axes leave it.

    `shard` is torch's FSDP2: 32-bit shards are the master copy, gathered for use in the compute dtype, but as they
    are under `mixed`, which casts later (autocast). `zero` shares the optimizer state (1) and the
    gradients (2) over `data`. Muon's moments for embeddings and norms are AdamW's; that they are twice as large is
    left out.
    """
    weights, gradients, master = _KEPT[precision]
    moments = _MOMENTS[optimizer]
    if layout.shard > 1:
        n = layout.shard
        return States(
            weights=4 / n,
            gradients=4 / n,
            optimizer=moments / (n * (layout.data if layout.zero else 1)),
            gathered=2.0 if precision in ("bf16", "fp16") else 4.0,
        )
    return States(
        weights=weights,
        gradients=gradients / (layout.data if layout.zero == 2 else 1),
        optimizer=(master + moments) / (layout.data if layout.zero else 1),
        gathered=2.0 if precision == "mixed" else 0.0,
    )
