"""Norms that compute in the type they are given, for checks in float64: the library's cast to float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class DtypeKeepingNorm(nn.Module):
    """Root mean square norm (Zhang and Sennrich 2019). Takes over the weight of a stock one."""

    def __init__(self, stock: Any) -> None:
        super().__init__()
        self.weight: nn.Parameter = stock.weight
        self._epsilon: float = stock.variance_epsilon

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + self._epsilon)
        return self.weight * (values * scale)


def keep_dtype(model: nn.Module) -> nn.Module:
    """Exchange every root mean square norm of a stock model, in place; names and weights stay. Returns it."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if hasattr(child, "variance_epsilon"):
                setattr(module, name, DtypeKeepingNorm(child))
    return model
