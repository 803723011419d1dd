"""The model that parity trains, always from the same weights, and a run of it under some layout."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from trimtab.data.loader import Loader
from trimtab.models.load import load
from trimtab.models.precise import keep_dtype
from trimtab.models.seeded import seeded
from trimtab.parallel.compose import lay_out
from trimtab.parallel.mesh import Grid
from trimtab.training.job import TrainJob
from trimtab.training.optimizers import Optimizers
from trimtab.training.parity.job import ParityJob
from trimtab.training.parity.tiny import MODELS, task_of
from trimtab.training.streams import begin_step

# Clips every step of a tiny model, so that the norm over all ranks matters to the result.
_CLIP = 0.5
_LEARNING_RATE = 3e-3


def seed_model(job: ParityJob) -> nn.Module:
    """The same weights at every call, in the job's type, whose norms and loss keep it."""
    if job.model in MODELS:
        with seeded(job.seed):
            model = MODELS[job.model]()
    else:
        model = load(Path(job.model))
    return keep_dtype(model.to(getattr(torch, job.dtype))).train()


class Subject:
    """One run under one layout: as training does it, on samples drawn at random."""

    def __init__(self, job: ParityJob, grid: Grid) -> None:
        self._job, self._grid = job, grid
        model = seed_model(job)
        self._objective, samples = task_of(job, model)
        self.distributed = lay_out(model, grid)
        settings = TrainJob(
            model="",
            data="",
            output="",
            tokens=1,
            optimizer="adamw",
            learning_rate=_LEARNING_RATE,
        )
        self.optimizers = Optimizers(model, self.distributed, settings, grid.ranks)
        self.loader = Loader(
            samples,
            batch=job.batch,
            seed=job.seed,
            rank=grid.share,
            world=grid.shares,
        )
        # As the last step began.
        self.random_state = torch.get_rng_state()

    def step(self) -> float:
        """Mean loss of the whole batch, in nats, before the step."""
        begin_step(self._job.seed, self.loader.position // self._job.batch, self._grid.stream)
        self.random_state = torch.get_rng_state()
        device = self._grid.ranks.device
        batch = {name: torch.from_numpy(values).to(device) for name, values in self.loader.next().items()}
        inputs, targets, count = self._objective.prepare(batch)
        part = self.distributed.backward(inputs, targets, self._objective.loss, count)
        self.distributed.clip(_CLIP)
        self.optimizers.step(1.0)
        self.distributed.finish_step()
        return self.distributed.mean(part)

    def weights(self) -> dict[str, torch.Tensor]:
        """Whole copies of what this rank's stages hold. Ranks that share them must all call it."""
        return {name: whole(weight) for name, weight in self.distributed.weights().items()}

    def reach(self) -> dict[str, torch.Tensor]:
        """Of the last step, in one process: how far rounding alone may have moved each weight."""
        return self.optimizers.reach(self._job.rounding)

    def moments(self) -> dict[str, torch.Tensor]:
        return {name: whole(state) for name, state in self.optimizers.state().items()}

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Everything that a run goes on from, live; what it cannot be read into must be `adopt`ed."""
        weights = {f"model.{name}": weight for name, weight in self.distributed.weights().items()}
        state = {f"optimizer.{name}": value for name, value in self.optimizers.state().items()}
        return weights | state | {"data.position": torch.tensor(self.loader.position)}

    def adopt(self, read: dict[str, torch.Tensor]) -> None:
        """What a snapshot says of the place in the data, on which the random numbers depend too."""
        self.loader.position = int(read["data.position"])


def whole(value: torch.Tensor) -> torch.Tensor:
    return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
