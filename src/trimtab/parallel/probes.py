"""Small decoders trained for a few steps: what a step costs that the times of its operations do not show.

Narrow ones have next to nothing to compute, so their steps are the host's work: dispatch, hooks, small messages, by
layout. Wide ones, two depths each, show what a layer costs beyond its matrix products, and under tensor parallelism
what its messages cost between computations. The most memory of a narrow one is what the strategy's process holds by
itself; that of a wide one, what the allocator needs beyond the tensors.
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
from trimtab.parallel.memory import forget_peak, fullest
from trimtab.parallel.mesh import build_grid
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import Layout
from trimtab.spec.profile import StepSample

_WARM_UP, _STEPS = 2, 5
# Hidden units of a head, and of a rank of narrow models, which is their heads' width.
_HEAD, _NARROW = 64, 16
# Hidden size and tokens of a sequence.
_WIDE = ((128, 128), (256, 128), (256, 256), (512, 256))


def samples(ranks: Ranks, layout: Layout) -> Iterator[StepSample]:
    """Of one strategy. Every rank calls it, and takes the slowest rank's time and the fullest one's memory."""
    n = ranks.world
    for layers in (n, 3 * n):
        yield _sample(ranks, layout, layers=layers, hidden=max(32, _NARROW * n), head=_NARROW, length=16)
    # A multiple of what splits over the ranks, near the widest.
    hidden, length = _WIDE[-1]
    wide = -(-hidden // (_HEAD * n)) * _HEAD * n
    for layers in (n, 2 * n) if layout.tensor > 1 else (max(2, n),):
        yield _sample(ranks, layout, layers=layers, hidden=wide, head=_HEAD, length=length)
    for hidden, length in _WIDE if layout.data == n else ():
        for layers in (1, 2):
            yield _sample(ranks, layout, layers=layers, hidden=hidden, head=_HEAD, length=length)


def _sample(ranks: Ranks, layout: Layout, *, layers: int, hidden: int, head: int, length: int) -> StepSample:
    heads, vocabulary, batch = hidden // head, 64 * ranks.world, 4 * ranks.world
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
    forget_peak(ranks.device)
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
        peak_bytes=fullest(ranks),
    )


def _step_seconds(model: Distributed, ranks: Ranks, vocabulary: int, length: int, batch: int) -> float:
    """The median step of the slowest rank: loss, gradients, clipping, update."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for weight in model.parameters():
        # As in training they are there before the first step: what comes later fills holes, and memory grows by more.
        optimizer.state[weight] = {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(weight),
            "exp_avg_sq": torch.zeros_like(weight),
        }
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
