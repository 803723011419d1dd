"""One pass through a decoder, block by block, that chooses what stays and refits what remains.

Two streams of hidden states run side by side: the original model's and the compressed one's. Each half block is
fitted on *already compressed* inputs to bring the compressed stream back to the original one, so it also makes
up for what went before it, removed layers included. Memory: two streams (tokens × hidden × 4 bytes each), and
one half block's features (at most 256 MiB) and second moments. The model itself is not changed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import torch
from torch import Tensor

from trimtab.compression.pruning.blocks import HALVES, Blocks, Half
from trimtab.compression.pruning.importance import Importance, choose
from trimtab.compression.pruning.moments import Moments
from trimtab.compression.pruning.refit import refit
from trimtab.compression.shapes import Shape
from trimtab.models.info import ModelInfo

# Features are run a second time rather than kept where they would take more than this.
_REMEMBERED_BYTES = 256 * 2**20


class HalfCut(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What becomes of one half block: its kept units, and the output matrix (features, hidden) and bias, float32.

    `before` and `after` are the relative errors of the half's output on calibration text without and with refit.
    """

    layer: int
    half: Half
    units: Tensor
    matrix: Tensor
    bias: Tensor | None
    before: float
    after: float
    damping: float


class Sequential:
    """The pass. `cuts` has an entry for each half of a kept layer that changes."""

    def __init__(
        self,
        blocks: Blocks,
        info: ModelInfo,
        shape: Shape,
        *,
        refitting: bool = True,
        how: Importance = "elimination",
    ) -> None:
        self._blocks, self._info, self._shape = blocks, info, shape
        self._refitting, self._how = refitting, how
        self.cuts: list[HalfCut] = []

    def run(self, tokens: Tensor, on_progress: Callable[[float], None] | None = None) -> list[HalfCut]:
        """Calibrate on token ids (n, length)."""
        blocks, last = self._blocks, self._shape.layers[-1]
        original = torch.cat([blocks.embed(tokens[part]) for part in blocks.batches(len(tokens))])
        compressed = original  # the same until something changes
        for layer in range(last + 1):
            kept = layer in self._shape.layers
            if not kept and compressed is original:
                compressed = original.clone()
            for half in HALVES:
                if kept and (compressed is not original or self._keep(half) < self._units(half)):
                    compressed = original.clone() if compressed is original else compressed
                    self._half(layer, half, original, compressed)
                else:
                    self._advance(layer, half, original)
            if on_progress:
                on_progress((layer + 1) / (last + 1))
        return self.cuts

    def _units(self, half: Half) -> int:
        return self._info.kv_heads if half == "attention" else self._info.ffn

    def _keep(self, half: Half) -> int:
        return self._shape.kv_heads if half == "attention" else self._shape.ffn

    def _advance(self, layer: int, half: Half, hidden: Tensor) -> None:
        for part in self._blocks.batches(len(hidden)):
            hidden[part] = self._blocks.run_half(layer, half, hidden[part])

    def _half(self, layer: int, half: Half, original: Tensor, compressed: Tensor) -> None:
        """Measure, choose, refit, and move both streams on, in place."""
        blocks = self._blocks
        matrix, bias = blocks.output_matrix(layer, half), blocks.output_bias(layer, half)
        moments = Moments(len(matrix), matrix.shape[1], bias=bias is not None)
        seen: list[Tensor] = []
        remember = original.shape[0] * original.shape[1] * len(matrix) * 4 <= _REMEMBERED_BYTES
        for part in blocks.batches(len(original)):
            original[part] = blocks.run_half(layer, half, original[part])
            features = blocks.features(layer, half, compressed[part])
            moments.add(features, original[part] - compressed[part])
            if remember:
                seen.append(features)
        units = choose(moments, matrix, self._units(half), self._keep(half), how=self._how)
        cut = self._cut(layer, half, moments, matrix, bias, units)
        self.cuts.append(cut)
        kept = features_of(units, len(matrix) // self._units(half))
        for number, part in enumerate(blocks.batches(len(original))):
            features = seen[number] if remember else blocks.features(layer, half, compressed[part])
            change = features[..., kept] @ cut.matrix
            compressed[part] += change if cut.bias is None else change + cut.bias

    def _cut(
        self, layer: int, half: Half, moments: Moments, matrix: Tensor, bias: Tensor | None, units: Tensor
    ) -> HalfCut:
        whole = matrix if bias is None else torch.cat([matrix, bias[None]])
        kept = features_of(units, len(matrix) // self._units(half))
        if bias is not None:
            kept = torch.cat([kept, torch.tensor([len(matrix)])])
        found = refit(moments, whole, kept)
        fitted = (found.matrix if self._refitting else whole[kept]).to(matrix.dtype)
        return HalfCut(
            layer=layer,
            half=half,
            units=units,
            matrix=fitted if bias is None else fitted[:-1],
            bias=None if bias is None else fitted[-1],
            before=found.before,
            after=found.after if self._refitting else found.before,
            damping=found.damping,
        )


def features_of(units: Tensor, size: int) -> Tensor:
    """Indices of the features that units own: unit u has u · size … (u + 1) · size - 1."""
    return (units[:, None] * size + torch.arange(size)).flatten()
