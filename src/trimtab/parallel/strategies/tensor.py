"""Tensor parallelism (Shoeybi et al. 2019): every layer's matrices are split over ranks, columns then rows.

With `sequence` what lies between them is split by position (Korthikanti et al. 2022). Which matrix is cut how
is data: a decoder's family says it; in a stack of Linear layers they alternate.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from trimtab.models.stretch import Stretch
from trimtab.parallel.mesh import Grid
from trimtab.spec.errors import UsageError

Plan = dict[str, ParallelStyle]
# Layers that see every feature by itself, so that they may stand between a column and a row.
_ELEMENTWISE = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.LeakyReLU,
    nn.ELU,
    nn.Identity,
    nn.Softplus,
)


def split_layers(module: nn.Module, grid: Grid) -> None:
    """Cut a decoder's stretch or a Sequential of Linear layers in place. Raises `UsageError` where it cannot."""
    mesh = grid.axis("tensor")
    if isinstance(module, Stretch):
        _split_stretch(module, mesh, sequence=grid.layout.sequence)
    elif isinstance(module, nn.Sequential):
        _apply(module, mesh, _stack_plan(module, mesh.size()))
    else:
        raise UsageError(
            f"{type(module).__name__} is neither a known decoder nor a Sequential of Linear layers.",
            where="parallel.tensor",
            remedy="Use data or shard.",
        )


def partial_gradients(module: nn.Module) -> set[nn.Parameter]:
    """Whole weights of which every rank sees its own heads alone: their gradients must still be added up."""
    if not isinstance(module, Stretch):
        return set()
    norms = [
        layer.get_submodule(name) for layer in module.layers.values() for name in module.family.head_norms
    ]
    return {parameter for norm in norms for parameter in norm.parameters()}


def _split_stretch(stretch: Stretch, mesh: DeviceMesh, *, sequence: bool) -> None:
    _check_heads(stretch, mesh.size())
    tied = _tied_ends(stretch)
    _apply(stretch, mesh, dict(_stretch_plan(stretch, mesh.size(), sequence=sequence)))
    if tied and stretch.embedding is not None and stretch.head is not None:
        # Each of the two was cut by itself, in the same way; they must stay one weight.
        stretch.head.weight = stretch.embedding.weight
    stretch.split = mesh.size() if sequence else 1


def _stretch_plan(stretch: Stretch, ranks: int, *, sequence: bool) -> Iterator[tuple[str, ParallelStyle]]:
    known = stretch.family
    between = Shard(1) if sequence else Replicate()
    if stretch.embedding is not None:
        yield "embedding", RowwiseParallel(input_layouts=Replicate(), output_layouts=between)
    for index, layer in stretch.layers.items():
        for name in known.columns:
            _check_width(layer.get_submodule(name), f"layer {index}: {name}", ranks, axis=0)
            yield f"layers.{index}.{name}", ColwiseParallel()
        for name in known.rows:
            _check_width(layer.get_submodule(name), f"layer {index}: {name}", ranks, axis=1)
            yield f"layers.{index}.{name}", RowwiseParallel(output_layouts=between)
        if sequence:
            for name in known.norms:
                yield f"layers.{index}.{name}", SequenceParallel()
        # Whole once for all matrices that read it: so their gradients are added before they are summed over ranks.
        yield (
            f"layers.{index}.{known.attention}",
            PrepareModuleInput(
                input_kwarg_layouts={"hidden_states": between},
                desired_input_kwarg_layouts={"hidden_states": Replicate()},
            ),
        )
        yield (
            f"layers.{index}.{known.mlp}",
            PrepareModuleInput(input_layouts=between, desired_input_layouts=Replicate()),
        )
    if stretch.head is not None:
        if sequence:
            yield "norm", SequenceParallel()
        yield "head", ColwiseParallel(input_layouts=between, output_layouts=Replicate())


def _stack_plan(stack: nn.Sequential, ranks: int) -> Plan:
    """Linear layers in pairs, columns then rows; what is left over at the end stays whole."""
    plan: Plan = {}
    column: str | None = None
    for name, layer in stack.named_children():
        if isinstance(layer, nn.Linear):
            if column is None:
                column = name
                continue
            plan |= {column: ColwiseParallel(), name: RowwiseParallel()}
            _check_width(layer, name, ranks, axis=1)
            column = None
        elif column is not None and not isinstance(layer, _ELEMENTWISE):
            # It needs all features, so the Linear layer before it must stay whole.
            column = None
    if not plan:
        raise UsageError(
            "there are no two Linear layers in a row to split.",
            where="parallel.tensor",
            remedy="Use data or shard.",
        )
    return plan


def _apply(module: nn.Module, mesh: DeviceMesh, plan: Plan) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 1:
            # Norms stay whole. Left where they were loaded, one of them would keep the whole model's file in memory.
            parameter.data = parameter.data.clone()
    # All ranks hold the same weights already.
    parallelize_module(module, mesh, plan, src_data_rank=None)


def _tied_ends(stretch: Stretch) -> bool:
    both = stretch.embedding is not None and stretch.head is not None
    return both and stretch.embedding.weight is stretch.head.weight  # pyrefly: ignore[missing-attribute]


def _check_heads(stretch: Stretch, ranks: int) -> None:
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(stretch.config, name, ranks)
        if heads % ranks:
            raise UsageError(
                f"{name} is {heads}, which {ranks} ranks cannot share evenly.",
                where="parallel.tensor",
                remedy="Use a size that divides it.",
            )


def _check_width(layer: nn.Module, name: str, ranks: int, *, axis: int) -> None:
    weight: Any = layer.weight
    if not isinstance(weight, DTensor) and weight.shape[axis] % ranks:
        raise UsageError(
            f"{name} has a width of {weight.shape[axis]}, which {ranks} ranks cannot share evenly.",
            where="parallel.tensor",
            remedy="Use a size that divides it.",
        )
