"""Second moments of a half block's features and targets: all that choosing and refitting need, in bounded memory.

For features Z (T × C) and targets Y (T × H) only ZᵀZ, ZᵀY, ‖Y‖² and the sums are kept, in float64, whatever T.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """`gram` (C, C), `cross` (C, H), `target_square` a number, `tokens` their count.

    With `bias`, a feature that is always 1 stands last, so that an offset is fitted like any other feature.
    """

    def __init__(self, features: int, hidden: int, *, bias: bool) -> None:
        self.bias = bias
        width = features + bias
        self.gram = torch.zeros(width, width, dtype=torch.float64)
        self.cross = torch.zeros(width, hidden, dtype=torch.float64)
        self.target_square, self.tokens = 0.0, 0

    def add(self, features: Tensor, target: Tensor) -> None:
        """Features (…, C) and targets (…, H) of one batch, float32. Products are float32, their sum float64."""
        z, y = features.flatten(0, -2).float(), target.flatten(0, -2).float()
        if self.bias:
            z = torch.cat([z, z.new_ones(len(z), 1)], dim=1)
        self.gram += (z.T @ z).double().cpu()
        self.cross += (z.T @ y).double().cpu()
        self.target_square += float(y.double().square().sum())
        self.tokens += len(z)

    def error(self, matrix: Tensor, kept: Tensor) -> float:
        """‖Y - Z_kept W‖² ÷ ‖Y‖² for W (kept, H) float64: 0 is perfect, 1 as bad as giving nothing."""
        if self.target_square == 0:
            return 0.0
        fitted = (matrix * (self.gram[kept][:, kept] @ matrix - 2 * self.cross[kept])).sum()
        return max(0.0, (self.target_square + float(fitted)) / self.target_square)
