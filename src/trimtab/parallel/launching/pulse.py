"""What a rank is doing, told once a second: a small JSON file a rank, written whole. No torch is imported here.

A thread writes it, so it is fresh while the rank computes or waits, and stops when the process is stopped. Which
collective a rank waits in comes from torch's flight recorder, so every strategy's collectives are seen.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

Phase = Literal["starting", "waiting for work", "loading", "training", "validating", "saving"]
BEAT_SECONDS = 1.0
_BEAT_BYTES = 512
# Saving goes on beside training in a group of this name, which says nothing about where a rank is.
CHECKPOINT_GROUP = "checkpoints"
# Read by torch when the first collective is made: how many of them are remembered.
RECORDER = {"TORCH_FR_BUFFER_SIZE": "64"}


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """`count` grows with every beat. `step` is the training step at work; `collectives` were begun so far, and
    `waits_in` names the oldest of them that has not ended.
    """

    rank: int
    host: str
    pid: int
    count: int
    phase: Phase
    step: int
    collectives: int = 0
    waits_in: str | None = None


class Pulse:
    """One rank's own; `at` is called by what it does, and costs nothing."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder, self._rank = folder, rank
        self._now: tuple[Phase, int] = ("starting", 0)
        self._count = 0
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join()

    def at(self, phase: Phase, step: int = 0) -> None:
        """A new phase is told at once: how long silence is borne depends on it."""
        changed = phase != self._now[0]
        self._now = (phase, step)
        if changed:
            self._wake.set()

    def beat(self) -> None:
        phase, step = self._now
        self._count += 1
        collectives, waits_in = _collectives()
        beat = Beat(
            rank=self._rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            count=self._count,
            phase=phase,
            step=step,
            collectives=collectives,
            waits_in=waits_in,
        )
        # Of one size, so that on a full disk a beat fits into the place of the last one.
        self._write(msgspec.json.encode(beat).ljust(_BEAT_BYTES))

    def _write(self, beat: bytes) -> None:
        path = beat_path(self._folder, self._rank)
        temporary = path.with_suffix(".part")
        try:
            temporary.write_bytes(beat)
            temporary.replace(path)
        except FileNotFoundError:
            raise
        except OSError:
            # A full disk is no reason to seem dead.
            with suppress(OSError), path.open("r+b") as file:
                file.write(beat)

    def _run(self) -> None:
        while True:
            try:
                self.beat()
            except FileNotFoundError:
                # The folder is gone: whoever watched has left.
                return
            self._wake.wait(BEAT_SECONDS)
            self._wake.clear()
            if self._ended:
                return


def beat_path(folder: Path, rank: int) -> Path:
    return folder / f"rank{rank}.beat"


def read_beat(folder: Path, rank: int) -> Beat | None:
    """None before the first one."""
    try:
        return msgspec.json.decode(beat_path(folder, rank).read_bytes(), type=Beat)
    except FileNotFoundError:
        return None


def _collectives() -> tuple[int, str | None]:
    """(begun so far, the oldest that has not ended), from the flight recorder of this process."""
    c10d = sys.modules.get("torch._C._distributed_c10d")
    if c10d is None or not hasattr(c10d, "_dump_fr_trace_json"):
        return 0, None
    entries = msgspec.json.decode(c10d._dump_fr_trace_json()).get("entries", [])  # noqa: SLF001 (no public way)
    if not entries:
        return 0, None
    waiting = [
        entry for entry in entries if not entry["retired"] and CHECKPOINT_GROUP not in entry["process_group"]
    ]
    return entries[-1]["record_id"] + 1, _described(waiting[0]) if waiting else None


def _described(entry: dict[str, Any]) -> str:
    """`all_reduce #42 of Float [1024]`."""
    name = entry["profiling_name"].rpartition(":")[2]
    number = entry["p2p_seq_id"] if entry["is_p2p"] else entry["collective_seq_id"]
    sizes = ", ".join(
        f"{kind} {size}" for kind, size in zip(entry["input_dtypes"], entry["input_sizes"], strict=False)
    )
    return f"{name} #{number}" + (f" of {sizes}" if sizes else "")
