"""Finds the rank that hangs, from all ranks' beats: which one, where it is, and what the others wait in.

Two signs: a rank whose beats end is stopped (or its machine is); where all beat and none gets on, the one that
waits in no collective, or has begun the fewest, holds up the rest. Clocks of hosts are not compared.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trimtab.parallel.launching.pulse import Beat, Phase, read_beat
from trimtab.spec.errors import RankLostError

# Seconds without a beat after which a rank counts as hung.
HANG_SECONDS = 60.0
# A step may take long, so getting on is judged more patiently than beating; so is beating while libraries load,
# which may keep a process from running any of its threads.
_PATIENCE = 10
_LOADING: frozenset[Phase] = frozenset({"starting", "loading"})
# What all ranks do together; elsewhere one may rightly work while the others wait.
_TOGETHER: frozenset[Phase] = frozenset({"training"})


class _Seen(msgspec.Struct):
    """A rank's last beat, when its count changed and when it got on, on this machine's clock."""

    beat: Beat
    beat_at: float
    moved_at: float


class Watch:
    """Call `look` every second or so."""

    def __init__(self, folder: Path, world: int, hang_seconds: float = HANG_SECONDS) -> None:
        self._folder, self._world, self._limit = folder, world, hang_seconds
        self._seen: dict[int, _Seen] = {}

    def look(self) -> None:
        """Raises `RankLostError` naming a rank that hangs."""
        now = time.monotonic()
        for rank in range(self._world):
            if (beat := read_beat(self._folder, rank)) is not None:
                self._note(beat, now)
        if len(self._seen) < self._world:
            # Not all have begun; meeting has a limit of its own.
            return
        seen = list(self._seen.values())
        silent = [one for one in seen if now - one.beat_at > self._limit_of(one.beat.phase)]
        if silent:
            raise hung(silent[0].beat, [one.beat for one in seen], now - silent[0].beat_at)
        still = min(now - one.moved_at for one in seen)
        if still > _PATIENCE * self._limit and all(one.beat.phase in _TOGETHER for one in seen):
            raise hung(straggler([one.beat for one in seen]), [one.beat for one in seen], still)

    def _limit_of(self, phase: Phase) -> float:
        return self._limit * (_PATIENCE if phase in _LOADING else 1)

    def _note(self, beat: Beat, now: float) -> None:
        known = self._seen.get(beat.rank)
        if known is None or known.beat.pid != beat.pid:
            self._seen[beat.rank] = _Seen(beat, now, now)
            return
        if beat.count != known.beat.count:
            known.beat_at = now
        if _place(beat) != _place(known.beat):
            known.moved_at = now
        known.beat = beat


def straggler(beats: Sequence[Beat]) -> Beat:
    """The one that holds up the others: not waiting in a collective if there is such, and the furthest behind."""
    return min(beats, key=lambda beat: (beat.waits_in is not None, beat.collectives, beat.step))


def hung(culprit: Beat, beats: Sequence[Beat], seconds: float) -> RankLostError:
    """The sentence: `culprit` and what the rest waits in."""
    waiting = [beat for beat in beats if beat.rank != culprit.rank and beat.waits_in]
    inside = f" in {culprit.waits_in}" if culprit.waits_in else ""
    others = (
        f" Rank {', '.join(str(beat.rank) for beat in waiting)} waits for it in {waiting[0].waits_in}."
        if waiting
        else ""
    )
    return RankLostError(
        f"rank {culprit.rank} of {len(beats)} hangs: nothing from it for {seconds:.0f} s, "
        f"{culprit.phase}{inside} at step {culprit.step}.{others}",
        where=f"process {culprit.pid} on {culprit.host}",
    )


def _place(beat: Beat) -> tuple[Phase, int, int]:
    return beat.phase, beat.step, beat.collectives
