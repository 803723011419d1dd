"""In which order layers go: by what removing each does to the loss, or by how little each changes its input.

*perplexity* removes greedily the layer whose absence hurts the loss least, on a few windows; it sees that two
layers can stand in for each other. *influence* is one pass: the mean of 1 - cos(in, out) (ShortGPT's Block
Influence, arXiv 2403.03853). The first costs layers³ ÷ 6 layer runs, so it is taken where that is affordable.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from trimtab.compression.pruning.blocks import Blocks
from trimtab.models.info import ModelInfo

DepthMeasure = Literal["auto", "perplexity", "influence"]
# About a minute of two CPU cores.
_AFFORDABLE_FLOPS = 2e12


def removal_order(
    blocks: Blocks, info: ModelInfo, tokens: Tensor, *, how: DepthMeasure = "auto"
) -> tuple[int, ...]:
    """Every layer, first to go first. `tokens` (n, length): a few windows of calibration text."""
    if how == "auto":
        runs = info.layers**3 / 6
        flops = runs * tokens.numel() * 2 * info.parameters / info.layers
        how = "perplexity" if flops <= _AFFORDABLE_FLOPS else "influence"
    if how == "influence":
        scores = influence(blocks, tokens)
        return tuple(sorted(range(blocks.count), key=lambda layer: scores[layer]))
    return _greedy(blocks, tokens)


def influence(blocks: Blocks, tokens: Tensor) -> list[float]:
    """Mean over tokens of 1 - cos(what enters, what leaves), per layer."""
    sums = [0.0] * blocks.count
    for part in blocks.batches(len(tokens)):
        hidden = blocks.embed(tokens[part])
        for layer in range(blocks.count):
            after = blocks.run(layer, hidden)
            sums[layer] += float((1 - functional.cosine_similarity(hidden, after, dim=-1)).sum())
            hidden = after
    return [total / tokens.numel() for total in sums]


def _greedy(blocks: Blocks, tokens: Tensor) -> tuple[int, ...]:
    left, order = list(range(blocks.count)), []
    while len(left) > 1:
        losses = _without_each(blocks, left, tokens)
        goes = left[min(range(len(left)), key=losses.__getitem__)]
        left.remove(goes)
        order.append(goes)
    return (*order, *left)


def _without_each(blocks: Blocks, left: list[int], tokens: Tensor) -> list[float]:
    """Loss with each of `left` taken out; what comes before it is run once for all."""
    losses = [0.0] * len(left)
    for part in blocks.batches(len(tokens)):
        before = blocks.embed(tokens[part])
        for place, layer in enumerate(left):
            hidden = before
            for later in left[place + 1 :]:
                hidden = blocks.run(later, hidden)
            losses[place] += blocks.nll(hidden, tokens[part])
            before = blocks.run(layer, before)
    return losses


def perplexity(blocks: Blocks, tokens: Tensor) -> float:
    """Of the whole model on windows (n, length), the first token of each not counted."""
    total = 0.0
    for part in blocks.batches(len(tokens)):
        hidden = blocks.embed(tokens[part])
        for layer in range(blocks.count):
            hidden = blocks.run(layer, hidden)
        total += blocks.nll(hidden, tokens[part])
    return float(torch.exp(torch.tensor(total / (len(tokens) * (tokens.shape[1] - 1)))))
