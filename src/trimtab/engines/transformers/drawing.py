"""Drawing one token from logits: greedy, or temperature then top-p, as the OpenVINO engine does."""

from __future__ import annotations

import torch

from trimtab.engines.base import GREEDY_BELOW
from trimtab.spec.wire import Sampling


def draw(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[int, float]:
    """The token and its log-probability (nats) under the model itself, whatever the temperature.

    `logits` (vocabulary,) float32 on the CPU, where the generator lives: a seed gives the same draw on any device.
    """
    logprobs = torch.log_softmax(logits, dim=-1)
    if sampling.temperature < GREEDY_BELOW:
        token = int(logits.argmax())
    else:
        weights = _nucleus(torch.softmax(logits / sampling.temperature, dim=-1), sampling.top_p)
        token = int(torch.multinomial(weights, 1, generator=generator))
    return token, float(logprobs[token])


def _nucleus(weights: torch.Tensor, top_p: float) -> torch.Tensor:
    """The most probable tokens whose mass reaches `top_p`, at least one; the others get weight 0."""
    if top_p >= 1:
        return weights
    ranked, order = weights.sort(descending=True)
    ranked[ranked.cumsum(0) - ranked >= top_p] = 0.0
    return torch.zeros_like(weights).scatter(0, order, ranked)
