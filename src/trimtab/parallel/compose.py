"""`parallelize`: a model and a layout in, one object out that trains it, whatever the layout.

Strategies are applied from the inside out: pipeline stages are cut, then their layers split, then recomputed,
then sharded or replicated; last, every rank lists the parts of the weights that it holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trimtab.models.families import ENCODERS, FAMILIES, IMAGE_MODELS
from trimtab.models.layouts import refuse_layout
from trimtab.models.stretch import Stretch
from trimtab.models.tying import is_tied
from trimtab.parallel.distributed import Distributed
from trimtab.parallel.mesh import Grid, build_grid
from trimtab.parallel.ranks import Ranks
from trimtab.parallel.strategies.batch_norm import share_statistics
from trimtab.parallel.strategies.compiling import compile_blocks
from trimtab.parallel.strategies.context import share_sequences
from trimtab.parallel.strategies.parts import make_parts
from trimtab.parallel.strategies.pipeline import Pipeline
from trimtab.parallel.strategies.recompute import recompute_activations
from trimtab.parallel.strategies.replicated import replicate
from trimtab.parallel.strategies.sharded import shard
from trimtab.parallel.strategies.stages import Boundaries, decoder_stages, sequential_stages
from trimtab.parallel.strategies.tensor import partial_gradients, split_layers
from trimtab.parallel.strategies.whole import Whole
from trimtab.parallel.strategies.zero import share_state
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, refuse_unrun


def parallelize(
    model: nn.Module,
    layout: Layout,
    *,
    ranks: Ranks | None = None,
    sample: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    offload: bool = False,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> Distributed:
    """Lay `model`, equal on all ranks and used up by this, over the processes and their devices. All must call it.

    `ranks` default: torch's process group, or this process alone. A pipeline of a Sequential needs a
    `sample` of its inputs. `dtype` is what weights are kept in, whatever `model` has: changed once they are cut.
    `offload`: sharded weights, gradients and optimizer state stay in host memory, and layers visit the device.
    `autocast` computes in another type while the module is in training mode. `compiled`: torch compiles every block
    by itself, once for all that are alike.
    Raises `UsageError` where this model cannot be laid out so.
    """
    grid = build_grid(layout, ranks or current_ranks())
    if grid is None:
        raise UsageError(
            f"{layout} takes {layout.world} processes, and this is another one.",
            where="parallel",
            remedy="Start as many as the layout has.",
        )
    return lay_out(
        model, grid, sample=sample, dtype=dtype, offload=offload, autocast=autocast, compiled=compiled
    )


def current_ranks() -> Ranks:
    """As torch's process group says; alone without one."""
    if not dist.is_initialized():
        return Ranks()
    return Ranks(rank=dist.get_rank(), world=dist.get_world_size())


def lay_out(
    model: nn.Module,
    grid: Grid,
    *,
    sample: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    offload: bool = False,
    autocast: torch.dtype | None = None,
    compiled: bool = False,
) -> Distributed:
    """`parallelize` on a grid that is there already."""
    layout = grid.layout
    _check(model, layout, offload=offload)
    tied = _tied_name(model) if layout.pipeline > 1 else None
    stages, boundaries = _cut(model, grid, sample)
    unsummed: set[str] = set()
    for stage in stages.values():
        if layout.context > 1 and isinstance(stage, Stretch):
            share_sequences(stage, grid)
        if layout.tensor > 1:
            split_layers(stage, grid)
            # By name: sharding puts other parameters in their place.
            partial_ones = partial_gradients(stage)
            unsummed |= {name for name, parameter in _named(stage) if parameter in partial_ones}
        share_statistics(stage, grid)
        recompute_activations(stage, layout.recompute)
        if compiled:
            compile_blocks(stage)
        if autocast is not None:
            stage.forward = partial(_autocast, stage, stage.forward, grid.ranks.device.type, autocast)
        if layout.shard > 1:
            shard(stage, grid, offload=offload)
        _settle(stage, grid.ranks.device, dtype, offload=offload)
    parameters = [pair for stage in stages.values() for pair in _named(stage)]
    parts = make_parts(_once(parameters), grid, tied)
    if layout.zero:
        parts = share_state(parts, grid)
    wrapped = boundaries is None and grid.replicas > 1 and layout.shard == layout.tensor == 1
    if boundaries is not None:
        runner = Pipeline(stages, boundaries, grid)
    else:
        whole = stages[0]
        runner = Whole(whole, replicate(whole, grid) if wrapped else whole, layout.micro_batch)
    return Distributed(
        grid=grid,
        stages=stages,
        parts={part.name: part for part in parts},
        runner=runner,
        tied=tied,
        unsummed=unsummed & {part.name for part in parts},
        averaged=grid.replicas * layout.shard if wrapped or layout.shard > 1 else 1,
    )


def _cut(
    model: nn.Module, grid: Grid, sample: torch.Tensor | None
) -> tuple[dict[int, nn.Module], Boundaries | None]:
    """What stages this rank has; without a pipeline one, and no boundaries."""
    layout, known = grid.layout, _is_decoder(model)
    if layout.pipeline > 1:
        return decoder_stages(model, grid) if known else sequential_stages(model, grid, sample)
    if known and (layout.tensor > 1 or layout.context > 1):
        layers = range(model.config.num_hidden_layers)  # pyrefly: ignore[missing-attribute]
        return {0: Stretch(model, layers, starts=True, ends=True)}, None
    return {0: model}, None


def _settle(stage: nn.Module, device: torch.device, dtype: torch.dtype | None, *, offload: bool) -> None:
    """Last: what was split or sharded is there already, part by part, and neither a device nor, where it is read from
    a file of another type, this process ever held the whole.
    """
    # transformers wraps `to` in a way that hides its signature.
    stage.to(device=None if offload else device, dtype=dtype)  # pyrefly: ignore[bad-argument-type]
    if offload:
        for module in stage.modules():
            for name, held in module.named_buffers(recurse=False):
                setattr(module, name, held.to(device))


def _check(model: nn.Module, layout: Layout, *, offload: bool) -> None:
    refuse_unrun(layout)
    if kind := _kind(model):
        refuse_layout(kind, layout)
    if offload and layout.shard == 1:
        raise UsageError(
            f"what ranks share by shard can stay in host memory, and {layout} shares nothing so.",
            where="training.offload",
            remedy="Use a layout with shard, or leave offload out.",
        )
    if layout.context > 1 and not _is_decoder(model):
        raise UsageError(
            f"{type(model).__name__} is not a decoder whose sequences can be shared.",
            where="parallel.context",
            remedy="Use data or shard.",
        )


def _kind(model: nn.Module) -> str:
    """The `model_type` of a stock model that is known; of others nothing."""
    config: Any = getattr(model, "config", None)
    kind = getattr(config, "model_type", "")
    return kind if _is_decoder(model) or kind in (*ENCODERS, *IMAGE_MODELS) else ""


def _is_decoder(model: nn.Module) -> bool:
    config: Any = getattr(model, "config", None)
    return getattr(config, "model_type", "") in FAMILIES and hasattr(model, "generate")


def _tied_name(model: nn.Module) -> str | None:
    """The weight that both ends of a pipeline hold."""
    if _is_decoder(model) and is_tied(model):
        return FAMILIES[model.config.model_type].embedding  # pyrefly: ignore[missing-attribute]
    return None


def _named(stage: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Under the stock model's names."""
    return list(stage.stock_parameters() if isinstance(stage, Stretch) else stage.named_parameters())


def _once(parameters: list[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    return list(dict(parameters).items())


def _autocast(
    stage: nn.Module, forward: Callable[..., Any], device: str, dtype: torch.dtype, *args: Any, **kwargs: Any
) -> Any:
    with torch.autocast(device, dtype, enabled=stage.training):
        return forward(*args, **kwargs)
