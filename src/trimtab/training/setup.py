"""What a run needs before its first step, made from a job: model, data, objective, optimizers, precision.

The model is laid out over the ranks as the job's layout says (`parallel.compose`); here it meets data and loss.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from trimtab.data.loader import Loader
from trimtab.data.samples.base import Batch
from trimtab.models.load import load
from trimtab.parallel.compose import parallelize
from trimtab.parallel.distributed import Distributed
from trimtab.parallel.mesh import Grid
from trimtab.parallel.ranks import Ranks
from trimtab.spec.errors import UsageError
from trimtab.training.checkpoint import begun_precision
from trimtab.training.export import export
from trimtab.training.job import TrainJob
from trimtab.training.objectives.base import make_objective
from trimtab.training.optimizers import Optimizers
from trimtab.training.precision import choose_precision
from trimtab.training.samples import held_out_samples, train_samples
from trimtab.training.validation import HeldOut


class Setup:
    """Raises `ModelError` and `DataError` for folders that cannot be used, `UsageError` for a bad job."""

    def __init__(self, job: TrainJob, ranks: Ranks) -> None:
        self._job, self._ranks = job, ranks
        self.precision = choose_precision(job.precision, ranks, begun=lambda: begun_precision(job))
        self.model = load(Path(job.model), "stored", job.task).train()
        self.distributed = parallelize(
            self.model,
            job.layout_for(ranks.world),
            ranks=ranks,
            dtype=torch.float32,
            autocast=torch.bfloat16 if self.precision == "bf16" else None,
            offload=job.offload,
            compiled=job.compile,
        )
        grid = self.distributed.grid
        if grid.layout.pipeline > 1:
            _forget_other_stages(self.model, self.distributed)
        self.loader = Loader(
            train_samples(job),
            batch=job.batch,
            seed=job.seed,
            rank=grid.share,
            world=grid.shares,
        )
        _check_shares(job, grid)
        if grid.layout.context > 1 and job.objective == "distillation":
            raise UsageError(
                "a teacher needs whole sequences, and context shares them.",
                where="parallel.context",
                remedy="Distil under another layout.",
            )
        self._objective = make_objective(job, ranks.device)
        self.optimizers = Optimizers(self.model, self.distributed, job, ranks)
        self.held_out = HeldOut(
            held_out_samples(job, multiple=grid.layout.length_multiple),
            self._objective,
            self.distributed,
            count=job.validation_samples,
            at_once=grid.layout.micro_batch or -(-job.batch // grid.shares),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor that a checkpoint needs, live."""
        weights = {f"model.{name}": weight for name, weight in self.distributed.weights().items()}
        return weights | {f"optimizer.{name}": state for name, state in self.optimizers.state().items()}

    def backward(self, batch: Batch) -> float:
        """Gradients of the global batch's mean loss from this rank's share of it.

        Returns this rank's part of the loss: over all ranks they add up to the mean per valid target.
        """
        there = {name: torch.from_numpy(values).to(self._ranks.device) for name, values in batch.items()}
        inputs, targets, valid = self._objective.prepare(there)
        return self.distributed.backward(inputs, targets, self._loss, valid)

    def clip(self) -> torch.Tensor:
        """Bound the gradient's norm over all ranks; returns what it was."""
        return self.distributed.clip(self._job.gradient_clip)

    def update(self, factor: float) -> None:
        """Move the weights; gradients are gone after it."""
        self.optimizers.step(factor)
        self.distributed.finish_step()

    def save(self) -> None:
        """The trained model as a folder that stock libraries load. Every rank calls it."""
        job = self._job
        export(self.model, self.distributed, Path(job.output), Path(job.model), job.task)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over what counts."""
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self._objective.loss(logits, targets)


def _check_shares(job: TrainJob, grid: Grid) -> None:
    """Sharded ranks gather weights together, so all must pass as often; a share more for one would wait for ever."""
    layout = grid.layout
    if layout.shard > 1 and (layout.micro_batch or layout.pipeline > 1) and job.batch % grid.shares:
        raise UsageError(
            f"{job.batch} samples do not divide over {grid.shares} shares, and sharded ranks must take equal steps.",
            where="training.batch",
            remedy=f"Use a multiple of {grid.shares}, or leave micro_batch out.",
        )


def _forget_other_stages(model: nn.Module, distributed: Distributed) -> None:
    """Layers that other ranks run keep their names and shapes, and no memory."""
    mine = {id(weight) for stage in distributed.stages.values() for weight in stage.parameters()}
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) not in mine:
                setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=weight.requires_grad))
