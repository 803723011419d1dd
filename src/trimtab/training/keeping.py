"""When a run saves, and from where it goes on: the last whole checkpoint of the same origin.

A torn checkpoint is named and passed over for an older one; with none left the run is refused rather than begun
anew in silence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from trimtab.parallel.ranks import Ranks
from trimtab.spec import checkpoints
from trimtab.spec.errors import IntegrityError
from trimtab.training import checkpoint
from trimtab.training.checkpoint import Progress
from trimtab.training.job import Point, TrainJob
from trimtab.training.origin import check_origin, origin
from trimtab.training.saver import Saver


class Keeper:
    """One run's checkpoints. Every rank makes one and calls it alike; `warn` is told what did not go well."""

    def __init__(self, job: TrainJob, ranks: Ranks, warn: Callable[[str], None]) -> None:
        self._job, self._ranks, self._warn = job, ranks, warn
        self._folder = Path(job.checkpoints or "")
        self.origin = origin(job, ranks)
        self._saver = Saver(self._folder, ranks, keep=job.keep, best=job.keep_best)
        self._saved_at = time.monotonic()
        self._best_saved = float("inf")

    def due(self) -> bool:
        """Whether it is time, by this rank's clock.

        While one is being written the next waits, unless every step is to be saved.
        """
        if self._saver.busy and self._job.checkpoint_seconds:
            return False
        return time.monotonic() - self._saved_at >= self._job.checkpoint_seconds

    def is_best(self, curve: Sequence[Point]) -> bool:
        """Whether the best is kept and the last point is better than all saved. The same on all ranks."""
        return self._job.keep_best and self._lowest(curve) < self._best_saved

    def save(self, progress: Progress, tensors: dict[str, torch.Tensor]) -> None:
        """Begin to; training may go on at once."""
        if fault := self._saver.start(progress, tensors):
            self._warn(fault)
        self._saved_at = time.monotonic()
        self._best_saved = min(self._best_saved, self._lowest(progress.curve))

    def finish(self) -> str | None:
        """Wait until what was begun is on the disk. Returns why it is not, or None."""
        return self._saver.finish()

    def close(self) -> None:
        self._saver.close()

    def resume(self, tensors: dict[str, torch.Tensor]) -> Progress | None:
        """The last whole checkpoint's progress with its tensors in place; None for a beginning.

        Raises `UsageError` for a checkpoint of another origin, `IntegrityError` if all there are are torn.
        """
        found = self._newest() if self._job.resume else None
        if found is None:
            return None
        progress = checkpoint.progress_of(found)
        changed = check_origin(progress.origin, self.origin, where=found, accept=self._job.accept_changes)
        if changed:
            self._warn(f"{found.name} was made with another {', another '.join(changed)}; going on, as told.")
        checkpoint.restore(found, tensors, self._ranks)
        self._best_saved = self._lowest(progress.curve)
        return progress

    def _newest(self) -> Path | None:
        torn: IntegrityError | None = None
        for step in reversed(self._steps()):
            path = checkpoints.folder_of(self._folder, step)
            fault = self._fault(path)
            if fault is None:
                return path
            torn = torn or fault
            self._warn(fault.message)
        if torn is not None:
            raise torn
        return None

    def _steps(self) -> list[int]:
        """As rank 0 sees them: another host's view of a shared folder may lag."""
        steps = checkpoints.steps(self._folder) if self._ranks.first else []
        count = int(self._ranks.broadcast(torch.tensor([len(steps)])).item())
        return self._ranks.broadcast(torch.tensor(steps if self._ranks.first else [0] * count)).tolist()

    def _fault(self, path: Path) -> IntegrityError | None:
        """What is wrong with a checkpoint, if any rank finds something; ranks share the files."""
        fault = None
        try:
            checkpoint.check(path, rank=self._ranks.rank, world=self._ranks.world)
        except IntegrityError as error:
            fault = error
        if self._ranks.sum(torch.tensor([int(fault is not None)])).item() and fault is None:
            fault = IntegrityError(f"the checkpoint {path.name} is torn.", where=str(path))
        return fault

    def _lowest(self, curve: Sequence[Point]) -> float:
        losses = [point.validation_loss for point in curve if point.validation_loss is not None]
        return min(losses, default=float("inf"))
