"""Pipeline parallelism: stages on different ranks, micro-batches passed along. Schedules are torch's:
GPipe (Huang et al. 2019), 1F1B (Narayanan et al. 2019), interleaved (Narayanan et al. 2021) and zero bubble
(Qi et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from trimtab.parallel.criterion import Criterion, Inputs
from trimtab.parallel.mesh import Grid
from trimtab.parallel.strategies.stages import Boundaries
from trimtab.planning.training.division import default_micro_batch
from trimtab.spec.errors import UsageError


class Pipeline:
    """The stages of this rank by number, and the schedule that runs them."""

    def __init__(self, stages: Mapping[int, nn.Module], boundaries: Boundaries, grid: Grid) -> None:
        self._stages, self._boundaries, self._grid = stages, boundaries, grid
        self._count = grid.layout.pipeline * grid.layout.virtual
        self._schedules: dict[tuple[int, ...], Any] = {}
        self._criterion: Criterion | None = None

    def backward(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion, scale: float) -> float:
        """As `Runner`; every rank of the pipeline is told the sum."""
        inputs = _tensor(inputs)
        schedule = self._schedule(inputs)
        self._criterion = lambda output, wanted: criterion(output, wanted) * scale
        losses: list[torch.Tensor] = []
        first, last = 0 in self._stages, self._count - 1 in self._stages
        schedule.step(
            *([inputs] if first else []),
            target=targets if last else None,
            losses=losses if last else None,
            return_outputs=False,
        )
        return self._tell_all(sum(loss.item() for loss in losses) / scale)

    @torch.no_grad()
    def total(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion) -> float:
        """In one pass, without micro-batches."""
        inputs = _tensor(inputs)
        boundaries = self._boundaries(inputs)
        values, total = inputs, 0.0
        for number in range(self._count):
            stage = self._stages.get(number)
            if stage is not None:
                if number:
                    values = torch.empty_like(boundaries[number], device=self._grid.ranks.device)
                    dist.recv(values, group=self._group, group_src=(number - 1) % self._grid.layout.pipeline)
                values = stage(values)
                if number < self._count - 1:
                    dist.send(
                        values.contiguous(),
                        group=self._group,
                        group_dst=(number + 1) % self._grid.layout.pipeline,
                    )
                else:
                    total = criterion(values, targets).item()
        return self._tell_all(total)

    @property
    def _group(self) -> dist.ProcessGroup | None:
        return self._grid.group("pipeline")

    def _tell_all(self, total: float) -> float:
        """The last stage's number, to all stages."""
        told = torch.tensor([total], dtype=torch.float64, device=self._grid.ranks.device)
        dist.broadcast(told, group=self._group, group_src=(self._count - 1) % self._grid.layout.pipeline)
        return told.item()

    def _schedule(self, inputs: torch.Tensor) -> Any:
        """Made once for every shape of inputs."""
        key = tuple(inputs.shape)
        if key not in self._schedules:
            size = self._micro_batch(len(inputs))
            boundaries = self._boundaries(inputs[:size])
            stages = [
                PipelineStage(
                    stage,
                    number,
                    self._count,
                    self._grid.ranks.device,
                    input_args=boundaries[number],
                    output_args=boundaries[number + 1],
                    group=self._group,
                )
                for number, stage in self._stages.items()
            ]
            self._schedules[key] = self._make(stages, len(inputs) // size)
        return self._schedules[key]

    def _make(self, stages: list[Any], parts: int) -> Any:
        # Losses are sums already, so gradients are not divided by the number of micro-batches.
        rest: dict[str, Any] = {"n_microbatches": parts, "loss_fn": self._loss, "scale_grads": False}
        match self._grid.layout.schedule:
            case "gpipe":
                return ScheduleGPipe(stages[0], **rest)
            case "1f1b":
                return Schedule1F1B(stages[0], **rest)
            case "interleaved":
                return ScheduleInterleaved1F1B(stages, **rest)
            case "zero_bubble":
                return ScheduleInterleavedZeroBubble(stages, **rest)

    def _loss(self, output: Any, targets: torch.Tensor) -> torch.Tensor:
        if self._criterion is None:
            raise ValueError("a pipeline without a criterion")
        return self._criterion(output, targets)

    def _micro_batch(self, count: int) -> int:
        ranks = self._grid.layout.pipeline
        wanted = self._grid.layout.micro_batch
        size = wanted or default_micro_batch(count, ranks)
        if count % size or count // size < ranks or (self._grid.layout.virtual > 1 and count // size % ranks):
            raise UsageError(
                f"{count} sequences a rank make no whole number of micro-batches for {ranks} stages.",
                where="parallel.micro_batch",
                remedy="Make the batch a multiple of pipeline × micro_batch × data × shard.",
            )
        return size


def _tensor(inputs: Inputs) -> torch.Tensor:
    if not isinstance(inputs, torch.Tensor):
        raise UsageError(
            "a pipeline takes one tensor.", where="parallel.pipeline", remedy="Use data or shard."
        )
    return inputs
