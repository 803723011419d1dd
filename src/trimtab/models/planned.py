"""A model's config as the planner's record of it. No torch."""

from __future__ import annotations

from pathlib import Path

from trimtab.models.info import read_shape
from trimtab.planning.training.architecture import Architecture, check


def planned(config_file: Path) -> Architecture:
    """Raises `ModelError` for a config that is missing or of an unknown family, `UsageError` for odd dimensions."""
    shape = read_shape(config_file)
    gpt = shape.family == "gpt2"
    return check(
        Architecture(
            family="gpt" if gpt else "llama",
            layers=shape.layers,
            hidden=shape.hidden,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            ffn=shape.ffn,
            vocabulary=shape.vocabulary,
            tied=shape.tied,
            positions=shape.context if gpt else 0,
            attention_bias=shape.attention_bias,
            query_key_norm=shape.query_key_norm,
        ),
        where=str(config_file),
    )
