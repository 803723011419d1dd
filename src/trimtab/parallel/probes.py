"""Small decoders trained for a few steps: what a step costs that the times of its operations do not show.

Narrow ones have next to nothing to compute, so their steps are the host's work: dispatch, hooks, small messages, by
layout. Wide ones, two depths each, show what a layer costs beyond its matrix products.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import torch
import transformers
from torch.nn import functional

from trimtab.parallel.compose import lay_out
from trimtab.parallel.distributed import Distributed
from trimtab.parallel.mesh import build_grid
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout
from trimtab.spec.profile import StepSample

_HEAD, _WARM_UP, _STEPS = 16, 2, 5


def samples(ranks: Ranks) -> Iterator[StepSample]:
    """Every rank calls it, and takes the slowest rank's time."""
    n = ranks.world
    layouts = [Layout(data=n)]
    if n > 1:
        layouts += [Layout(shard=n, reshard=True), Layout(tensor=n), Layout(pipeline=n)]
    for layout in layouts:
        for layers in (n, 3 * n):
            yield _sample(ranks, layout, layers=layers, hidden=max(32, _HEAD * n), heads=n, length=16)
    for hidden, length in ((128, 128), (256, 128), (256, 256), (512, 256)):
        for layers in (1, 2):
            yield _sample(
                ranks, Layout(data=n), layers=layers, hidden=hidden, heads=hidden // 64, length=length
            )


def _sample(ranks: Ranks, layout: Layout, *, layers: int, hidden: int, heads: int, length: int) -> StepSample:
    batch, vocabulary = 4 * ranks.world, 64 * ranks.world
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).train()
    grid = build_grid(layout, ranks)
    if grid is None:
        raise ValueError("a probe's layout takes all ranks")
    seconds = _step_seconds(lay_out(model, grid), ranks, vocabulary, length, batch)
    return StepSample(
        layout=layout,
        layers=layers,
        hidden=hidden,
        heads=heads,
        ffn=3 * hidden,
        vocabulary=vocabulary,
        sequence_length=length,
        batch=batch,
        seconds=seconds,
    )


def _step_seconds(model: Distributed, ranks: Ranks, vocabulary: int, length: int, batch: int) -> float:
    """The median step of the slowest rank: loss, gradients, clipping, update."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    windows = torch.randint(vocabulary, (batch, length + 1), device=ranks.device)
    share = model.share(windows)
    times = []
    for _ in range(_WARM_UP + _STEPS):
        ranks.barrier()
        began = time.perf_counter()
        model.backward(share[:, :-1], share, _loss, float(share[:, 1:].numel()))
        model.clip(1.0)
        model.step(optimizer)
        if ranks.device.type == "cuda":
            torch.cuda.synchronize(ranks.device)
        times.append(time.perf_counter() - began)
    return ranks.largest(median(times[_WARM_UP:]))


def _loss(output: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    logits = output if isinstance(output, torch.Tensor) else output.logits
    return functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="sum")
