"""A model cut into pipeline stages: a known decoder by the size of its layers, a Sequential by measured cost."""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trimtab.models.stretch import Stretch, family_of
from trimtab.parallel.mesh import Grid
from trimtab.planning.training.balance import cut, decoder_cut, stages_of_rank
from trimtab.spec.errors import UsageError

# What stage i takes and, at the end, what the last one gives, for inputs of a shape: tensors without data.
Boundaries = Callable[[torch.Tensor], list[torch.Tensor]]
_ROUNDS = 3


def decoder_stages(model: nn.Module, grid: Grid) -> tuple[dict[int, nn.Module], Boundaries]:
    """The stages of this rank by number, as `decoder_cut` says, by which planning goes as well."""
    layers = list(model.get_submodule(family_of(model).layers).children())
    head = model.get_output_embeddings().weight.numel()  # pyrefly: ignore[not-callable]
    costs = [sum(part.numel() for part in layer.parameters()) for layer in layers]
    ranges = decoder_cut(costs, head, grid.layout.pipeline * grid.layout.virtual)
    config: Any = model.config
    mine: dict[int, nn.Module] = {}

    def boundaries(inputs: torch.Tensor) -> list[torch.Tensor]:
        count, length = inputs.shape
        dtype = next(next(iter(mine.values())).parameters()).dtype
        split = grid.layout.tensor if grid.layout.sequence else 1
        hidden = _boundary((count, length // split, config.hidden_size), dtype)
        logits = _boundary((count, length, config.vocab_size), dtype)
        return [inputs.to("meta"), *[hidden] * (len(ranges) - 1), logits]

    for number in _own(len(ranges), grid):
        held = ranges[number]
        ends = held.stop == len(costs) + 1
        inside = range(held.start, min(held.stop, len(costs)))
        mine[number] = Stretch(model, inside, starts=number == 0, ends=ends)
    return mine, boundaries


def sequential_stages(
    model: nn.Module, grid: Grid, sample: torch.Tensor | None
) -> tuple[dict[int, nn.Module], Boundaries]:
    """Balanced by the time that each child takes for `sample`, measured on the first rank."""
    if not isinstance(model, nn.Sequential):
        raise UsageError(
            f"{type(model).__name__} is neither a known decoder nor a Sequential.",
            where="parallel.pipeline",
            remedy="Write it as a Sequential, or use data or shard.",
        )
    if sample is None:
        raise UsageError(
            "stages are balanced by measured cost.",
            where="parallel.pipeline",
            remedy="Give parallelize a sample: a few inputs.",
        )
    seconds, shapes = _measure(model, sample)
    costs = torch.tensor(seconds, dtype=torch.float64, device=grid.ranks.device)
    dist.broadcast(costs, group_src=0, group=grid.ranks.group)
    ranges = cut(costs.tolist(), grid.layout.pipeline * grid.layout.virtual)

    def boundaries(inputs: torch.Tensor) -> list[torch.Tensor]:
        given = [shapes[held.stop] for held in ranges]
        return [inputs.to("meta"), *(_boundary((len(inputs), *one.shape[1:]), one.dtype) for one in given)]

    children = list(model.named_children())
    return {
        number: nn.Sequential(OrderedDict(children[i] for i in ranges[number]))
        for number in _own(len(ranges), grid)
    }, boundaries


def _boundary(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """What passes between two stages: its gradient passes back."""
    return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)


def _own(stages: int, grid: Grid) -> range:
    return stages_of_rank(stages, grid.index("pipeline"), grid.layout.pipeline)


@torch.no_grad()
def _measure(model: nn.Sequential, sample: torch.Tensor) -> tuple[list[float], list[torch.Tensor]]:
    """Median seconds of every child, and what goes in and out of them, without data."""
    trained = model.training
    model.eval()
    seconds, values = [], sample
    shapes = [sample.to("meta")]
    for child in model.children():
        times = []
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            result = child(values)
            times.append(time.perf_counter() - started)
        values = result
        seconds.append(statistics.median(times))
        shapes.append(values.to("meta"))
    model.train(trained)
    return seconds, shapes
