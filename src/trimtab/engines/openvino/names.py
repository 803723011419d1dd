"""Names that the exporter gives to inputs and outputs and that engine and scorer rely on. No imports."""

from __future__ import annotations

MODEL = "openvino_model.xml"
WEIGHTS = "openvino_model.bin"
IDS, MASK, POSITIONS, BEAM, LOGITS = "input_ids", "attention_mask", "position_ids", "beam_idx", "logits"


def past(layers: int) -> list[str]:
    """`past_key_values.0.key`, `past_key_values.0.value`, …"""
    return [f"past_key_values.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def present(layers: int) -> list[str]:
    return [f"present.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
