"""What a run needs before its first step, made from a job: model, data, objective, optimizers, precision.

Also the one place that knows how a batch becomes gradients: micro-batches, autocast, DDP and its averaging.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.parallel import DistributedDataParallel

from trimtab.data.loader import Loader
from trimtab.data.prepared import Prepared
from trimtab.models.load import load
from trimtab.parallel.ranks import Ranks
from trimtab.training.job import TrainJob
from trimtab.training.objectives.base import make_objective
from trimtab.training.objectives.divergence import IGNORED
from trimtab.training.optimizers import Optimizers
from trimtab.training.precision import choose_precision
from trimtab.training.validation import HeldOut


class Setup:
    """Raises `ModelError` and `DataError` for folders that cannot be used, `UsageError` for a bad job."""

    def __init__(self, job: TrainJob, ranks: Ranks) -> None:
        self._job, self._ranks = job, ranks
        # Ranks must differ in dropout and agree in all else; weights come from files.
        torch.manual_seed(job.seed * 1009 + ranks.rank)
        data = Prepared.load(Path(job.data))
        self.loader = Loader(
            data.tokens("train"),
            length=job.sequence_length,
            batch=job.batch,
            seed=job.seed,
            rank=ranks.rank,
            world=ranks.world,
        )
        self.precision = choose_precision(job.precision, ranks)
        self.model = load(Path(job.model)).train()
        # transformers wraps `to` in a way that hides its signature.
        self.model.to(ranks.device)  # pyrefly: ignore[bad-argument-type]
        self._ddp = self._wrap()
        self._objective = make_objective(job, ranks.device)
        self.optimizers = Optimizers(self.model, job, ranks)
        self.held_out = HeldOut(data, length=job.sequence_length, count=job.validation_windows, ranks=ranks)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Every tensor that a checkpoint needs, live."""
        weights = {f"model.{name}": weight.detach() for name, weight in self.model.named_parameters()}
        return weights | {f"optimizer.{name}": state for name, state in self.optimizers.state().items()}

    def backward(self, windows: npt.NDArray[np.int64]) -> float:
        """Gradients of the global batch's mean loss from this rank's (n, length + 1) windows.

        Returns this rank's part of the loss: over all ranks they add up to the mean per valid token.
        """
        batch = torch.from_numpy(windows).to(self._ranks.device)
        valid = self._ranks.sum((batch[:, 1:] != IGNORED).sum()).item()
        parts = batch.split(self._job.micro_batch or len(batch))
        total = 0.0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with nullcontext() if last else self._without_sync():
                loss = self._loss(part) / valid
                # DDP averages over ranks; the losses already add up, so undo its division.
                (loss * self._ranks.world).backward()
            total += loss.item()
        return total

    def _without_sync(self) -> AbstractContextManager[None]:
        """Gradients stay on this rank until the last micro-batch."""
        return self._ddp.no_sync() if isinstance(self._ddp, DistributedDataParallel) else nullcontext()

    def _loss(self, windows: torch.Tensor) -> torch.Tensor:
        """Sum over tokens of (n, length + 1) windows."""
        inputs, targets = windows[:, :-1], windows[:, 1:]
        with torch.autocast(self._ranks.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits = self._ddp(input_ids=inputs, use_cache=False).logits
            return self._objective.loss(logits, inputs, targets)

    def _wrap(self) -> torch.nn.Module:
        if self._ranks.world == 1:
            return self.model
        on_gpu = self._ranks.device.type == "cuda"
        return DistributedDataParallel(
            self.model,
            device_ids=[self._ranks.device] if on_gpu else None,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
        )
