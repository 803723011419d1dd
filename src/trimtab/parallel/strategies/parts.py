"""What a rank holds of every parameter, whichever strategy cut it: plain tensors for optimizers, names for checkpoints.

Adam and its kin move each element by itself, so they need no distributed tensors: a rank's optimizer works on its
parts, and only checkpoints see how the parts make a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement

from trimtab.parallel.mesh import Grid


@dataclass(frozen=True, kw_only=True)
class Part:
    """`local` shares memory with what the module holds; where nothing is cut it is the module's parameter.

    `copies` ranks hold the same elements. `rows` are those of a replicated parameter whose optimizer state
    is shared (ZeRO-1); `mesh` and `placements` say how parts make the whole.
    """

    name: str
    parameter: nn.Parameter
    local: nn.Parameter
    copies: int
    mesh: DeviceMesh | None = None
    placements: Sequence[Placement] = ()
    rows: slice | None = None

    def gradient(self) -> torch.Tensor:
        """What this rank has of the gradient, in all rows; zeros where the loss does not depend on it."""
        gradient = self.parameter.grad
        if gradient is None:
            return torch.zeros_like(self.local if self.rows is None else self.parameter)
        if isinstance(gradient, DTensor):
            # Norms between sequence-parallel layers end as sums yet to be made.
            gradient = gradient.redistribute(placements=self.placements).to_local()
        return gradient

    def whole(self, values: torch.Tensor) -> torch.Tensor:
        """A tensor shaped like `local` as a part of the whole, for checkpoints; shares memory."""
        if self.mesh is None:
            return values
        size = self.parameter.size()
        return DTensor.from_local(
            values, self.mesh, self.placements, run_check=False, shape=size, stride=_strides(size)
        )


def make_parts(parameters: Iterable[tuple[str, nn.Parameter]], grid: Grid, tied: str | None) -> list[Part]:
    """Call it once all strategies are applied. `tied` is held by both ends of a pipeline."""
    parts = []
    for name, parameter in parameters:
        copies = grid.replicas * (2 if name == tied else 1)
        if isinstance(parameter, DTensor):
            mesh, placements = parameter.device_mesh, parameter.placements
            cut = [axis for axis, how in zip(_axes(mesh), placements, strict=True) if not how.is_replicate()]
            copies *= math.prod(getattr(grid.layout, axis) for axis in ("shard", "tensor") if axis not in cut)
            local = nn.Parameter(parameter.to_local().detach(), requires_grad=parameter.requires_grad)
            part = Part(
                name=name,
                parameter=parameter,
                local=local,
                copies=copies,
                mesh=mesh,
                placements=placements,
            )
        else:
            copies *= grid.layout.shard * grid.layout.tensor
            part = Part(name=name, parameter=parameter, local=parameter, copies=copies)
        parts.append(part)
    return parts


def norm_of(parts: Sequence[Part], grid: Grid) -> torch.Tensor:
    """Euclidean norm of all gradients over all ranks, every element counted once; the same on every rank."""
    total = torch.zeros((), dtype=torch.float64, device=grid.ranks.device)
    for part in parts:
        if part.local.grad is not None:
            total += part.local.grad.pow(2).sum(dtype=torch.float64) / part.copies
    return grid.ranks.sum(total).sqrt()


def _axes(mesh: DeviceMesh) -> tuple[str, ...]:
    return mesh.mesh_dim_names or ()


def _strides(size: torch.Size) -> tuple[int, ...]:
    return tuple(math.prod(size[axis + 1 :]) for axis in range(len(size)))
