"""How much of the hardware training uses: model FLOPs of a step over the peak, where the peak is known.

FLOPs a token are 6 for every weight of a matrix product, and 12 · layers · hidden · length for attention as if no
token were masked (Chowdhery et al. 2022, appendix B). Recomputed work does not count.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from trimtab.models.tying import is_tied

# Peak dense bf16 FLOP/s by a part of the device's name, the more special first (makers' datasheets).
PEAKS: Mapping[str, float] = {
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200": 989e12,
    "GB200": 2500e12,
    "B200": 2250e12,
    "A100": 312e12,
    "V100": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "T4": 65e12,
}


def peak(device: torch.device) -> float | None:
    """FLOP/s of one device in 16 bits; None where it is not known, as for CPUs."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def flops_per_token(model: nn.Module, length: int) -> float | None:
    """Of one training step, forward and backward; None for a model whose config does not give its dimensions."""
    config = getattr(model, "config", None)
    layers, hidden = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    if layers is None or hidden is None:
        return None
    matrices = {id(weight): weight.numel() for weight in model.parameters() if weight.ndim > 1}
    looked_up = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    if is_tied(model):
        # As the head it multiplies, once more.
        looked_up -= {id(model.get_output_embeddings().weight)}  # pyrefly: ignore[not-callable]
    multiplied = sum(count for weight, count in matrices.items() if weight not in looked_up)
    return 6.0 * multiplied + 12.0 * layers * hidden * length
