"""Writes checkpoints beside training: tensors are copied, then a thread writes, syncs and renames.

At most one is under way. One that fails (a full disk) leaves the earlier ones as they are and says why; training
goes on. Its collectives have a group of their own, so they never mix with training's.
"""

from __future__ import annotations

import shutil
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner

from trimtab.parallel.launching.pulse import CHECKPOINT_GROUP
from trimtab.parallel.ranks import Ranks
from trimtab.spec import checkpoints
from trimtab.spec.errors import IntegrityError
from trimtab.store.durable import move, sync
from trimtab.training import checkpoint
from trimtab.training.checkpoint import PROGRESS, Progress
from trimtab.training.storage import SafetensorsWriter


class Saver:
    """One run's. Every rank makes one and calls it alike."""

    def __init__(self, folder: Path, ranks: Ranks, *, keep: int, best: bool) -> None:
        self._folder, self._ranks, self._keep, self._best = folder, ranks, keep, best
        self._pending: Future[Any] | None = None
        self._step = 0
        if ranks.first:
            checkpoints.remove_unfinished(folder)
        ranks.barrier()
        self._group: dist.ProcessGroup | None = None
        if ranks.world > 1:
            self._group = dist.new_group(  # pyrefly: ignore[bad-assignment] (a member of it gets a group)
                backend="gloo", group_desc=CHECKPOINT_GROUP
            )
        else:
            # DCP warns of a group of one from its thread, where no context of ours would catch it.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    @property
    def busy(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def start(self, progress: Progress, tensors: dict[str, torch.Tensor]) -> str | None:
        """Copy `tensors` now and write them in the background. Returns what `finish` said of the one before."""
        fault = self.finish()
        self._step = progress.step
        part = self._part()
        writer = SafetensorsWriter(part, self._ranks.rank, commit=lambda: self._commit(part, progress))
        self._pending = dcp.async_save(  # pyrefly: ignore[bad-assignment] (staging is done when it returns)
            tensors,
            storage_writer=writer,
            planner=DefaultSavePlanner(flatten_state_dict=False),
            process_group=self._group,
        )
        return fault

    def finish(self) -> str | None:
        """Wait for what is being written. Returns why it failed, the same on all ranks, or None."""
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        try:
            pending.result()
        except CheckpointException as error:
            if self._ranks.first:
                shutil.rmtree(self._part(), ignore_errors=True)
            rank, (cause, _) = min(error.failures.items(), key=lambda item: item[0])
            left = checkpoints.steps(self._folder)
            good = f"the last good one is step-{left[-1]}" if left else "there is no earlier one"
            return f"the checkpoint of step {self._step} was not saved (rank {rank}: {cause}); {good}."
        return None

    def close(self) -> None:
        self.finish()
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None

    def _part(self) -> Path:
        return checkpoints.part_of(self._folder, self._step)

    def _commit(self, part: Path, progress: Progress) -> None:
        """Rank 0, when all ranks' files are on the disk: from here on the checkpoint exists."""
        (part / PROGRESS).write_bytes(msgspec.json.encode(progress))
        sync(part / PROGRESS)
        sync(part)
        final = checkpoints.folder_of(self._folder, progress.step)
        shutil.rmtree(final, ignore_errors=True)
        move(part, final)
        for step in checkpoint.surplus(self._kept(), keep=self._keep, best=self._best):
            shutil.rmtree(checkpoints.folder_of(self._folder, step), ignore_errors=True)

    def _kept(self) -> list[tuple[int, float | None]]:
        kept: list[tuple[int, float | None]] = []
        for step in checkpoints.steps(self._folder):
            try:
                progress = checkpoint.progress_of(checkpoints.folder_of(self._folder, step))
            except IntegrityError:
                kept.append((step, None))
                continue
            # A copy under another step's name is somebody's own.
            if progress.step == step:
                kept.append((step, progress.validation_loss))
        return kept
