"""A group of rank processes, started by exec once and given many jobs. The parent's side: no torch.

A rank that dies or hangs ends the group with an error that names it. Ranks die with their parent. Ctrl-C asks
them to save and stop; a second one kills them. Whatever happens, closing the group leaves no process.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from trimtab.parallel.launching.again import LOOK_CLOSER, start_again
from trimtab.parallel.launching.lines import (
    EXIT_NEIGHBOUR_LOST,
    Crashed,
    Done,
    Failed,
    Job,
    Line,
    News,
    Stop,
    decode_up,
    encode,
)
from trimtab.parallel.launching.pulse import BEAT_SECONDS, RECORDER
from trimtab.parallel.launching.watch import HANG_SECONDS, Watch
from trimtab.parallel.tasks import TaskName
from trimtab.spec import processes
from trimtab.spec.errors import EngineError, RankLostError, TrimtabError
from trimtab.spec.hardware import usable_cores
from trimtab.spec.layout import Layout, refuse_unrun

# How long ranks may take to save and stop, and how long the others may take once one has failed.
_STOP_SECONDS, _AFTER_FAILURE_SECONDS = 300.0, 5.0
_READ_BYTES = 1 << 16
# Ends that others bring about; what a process does to itself (SIGSEGV, SIGABRT, a code) it does again.
_BY_OTHERS = {
    *(-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP),
    *(-signal.SIGUSR1, -signal.SIGUSR2, EXIT_NEIGHBOUR_LOST),
}


def launch(layout: Layout, *, threads: int | None = None, hang_seconds: float = HANG_SECONDS) -> Group:
    """Start `layout.world` ranks of `threads` threads each (default: the usable cores, shared): a context.

    Returns at once; the ranks import while the caller goes on, and the first `run` waits for them. A rank that
    gives no sign of life for `hang_seconds` counts as hung.
    Raises `UsageError` for a layout that is planned for but not run.
    """
    refuse_unrun(layout)
    return Group(layout.world, threads or threads_of_each(layout.world), hang_seconds)


def threads_of_each(world: int) -> int:
    """The usable cores shared over the ranks of this machine."""
    return max(1, len(usable_cores()) // world)


class _Rank:
    """One process, the bytes it has sent so far that are not yet a line, and its answer to the present job."""

    def __init__(self, number: int, world: int, threads: int, folder: Path) -> None:
        self.number = number
        self.log = folder / f"rank{number}.log"
        self.pending = b""
        self.answer: Done | Failed | Crashed | None = None
        with self.log.open("wb") as log:
            self.process = processes.start(
                "rank",
                [
                    f"--rank={number}",
                    f"--world={world}",
                    f"--threads={threads}",
                    f"--store={folder / 'store'}",
                ],
                environment=_environment(threads),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C on a terminal goes to the parent alone, which then asks the ranks to stop.
                start_new_session=True,
            )

        self.input, self.output = _pipe(self.process.stdin), _pipe(self.process.stdout)

    def send(self, line: Line) -> None:
        with suppress(BrokenPipeError):
            self.input.write(encode(line))
            self.input.flush()

    def death(self, world: int) -> RankLostError:
        """Why this rank is gone: its signal or exit code, and the last thing it said.

        Without a remedy where somebody killed it, who may not do so again.
        """
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"stopped with code {code}"
        if code == -signal.SIGKILL:
            how += ", as systems do when memory is short"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines and os.environ.get("TRIMTAB_DEBUG"):
            sys.stderr.write("\n".join(lines) + "\n")
        last = f" Its last line: {lines[-1][:300]}" if lines else ""
        return RankLostError(
            f"rank {self.number} of {world} {how}.{last}",
            where=f"process {self.process.pid} on {socket.gethostname()}",
            remedy=None if code in _BY_OTHERS else LOOK_CLOSER,
        )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without a pipe")
    return stream


def _environment(threads: int) -> dict[str, str]:
    wanted = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    # Their last line on stderr is shown when they die, and should not be a notice of deprecation.
    return wanted | RECORDER | {"PYTHONWARNINGS": "ignore::FutureWarning"} | loopback()


def loopback() -> dict[str, str]:
    """For ranks on one machine: without it gloo may pick an interface that cannot reach itself."""
    return {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}


class Group:
    """`world` ranks. One job at a time; after an error the group is closed and refuses more."""

    def __init__(self, world: int, threads: int, hang_seconds: float = HANG_SECONDS) -> None:
        self.world, self.threads = world, threads
        self._folder = Path(tempfile.mkdtemp(prefix="trimtab-ranks-"))
        self._watch = Watch(self._folder, world, hang_seconds)
        self._selector = selectors.DefaultSelector()
        self._ranks: list[_Rank] = []
        self._open = True
        try:
            for number in range(world):
                rank = _Rank(number, world, threads, self._folder)
                self._ranks.append(rank)
                self._selector.register(rank.output, selectors.EVENT_READ, rank)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        return [rank.process.pid for rank in self._ranks]

    def run(
        self, task: TaskName, job: dict[str, Any], on_event: Callable[[dict[str, Any]], None] | None = None
    ) -> dict:
        """Give every rank the job, pass on rank 0's events, return rank 0's result.

        Raises what the task raised, `RankLostError` naming a rank that died or hangs, and `KeyboardInterrupt` once the
        ranks have saved and stopped. All but the last close the group.
        """
        if not self._open:
            raise EngineError("the group of ranks has stopped.", remedy="Start a new one.")
        for rank in self._ranks:
            rank.answer = None
            rank.send(Job(task=task, job=job))
        try:
            return self._collect(on_event or (lambda _: None))
        except KeyboardInterrupt:
            self._stop()
            raise
        except RankLostError as error:
            self.close()
            error.remedy = error.remedy or start_again(job)
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every rank: end of input asks them, and what is still there after a moment is killed."""
        self._open = False
        for rank in self._ranks:
            with suppress(BrokenPipeError):
                rank.input.close()
        for rank in self._ranks:
            try:
                rank.process.wait(timeout=_AFTER_FAILURE_SECONDS if sys.exc_info()[0] is None else 0.5)
            except subprocess.TimeoutExpired:
                rank.process.kill()
                rank.process.wait()
            rank.output.close()
        self._ranks.clear()
        self._selector.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _collect(
        self, on_event: Callable[[dict[str, Any]], None], deadline: float = float("inf")
    ) -> dict[str, Any]:
        while any(rank.answer is None for rank in self._ranks):
            left = deadline - time.monotonic()
            ready = self._selector.select(timeout=min(BEAT_SECONDS, max(0.0, left)))
            if not ready and left <= 0:
                break
            self._watch.look()
            ended = [key.data for key, _ in ready if not self._take(key.data, on_event)]
            if ended:
                raise self._first_death(ended[0])
            if any(isinstance(rank.answer, Failed | Crashed) for rank in self._ranks):
                deadline = min(deadline, time.monotonic() + _AFTER_FAILURE_SECONDS)
        return self._outcome()

    def _take(self, rank: _Rank, on_event: Callable[[dict[str, Any]], None]) -> bool:
        """What a rank has said since; False once it has ended."""
        data = os.read(rank.output.fileno(), _READ_BYTES)
        if not data:
            self._selector.unregister(rank.output)
            return False
        *lines, rank.pending = (rank.pending + data).split(b"\n")
        for line in map(decode_up, lines):
            if isinstance(line, News):
                on_event(line.event)
            elif isinstance(line, Done | Failed | Crashed):
                rank.answer = line
        return True

    def _first_death(self, found: _Rank) -> TrimtabError:
        """When one rank dies its neighbours fail too: blame the one that says why, was killed, or failed by itself."""
        deadline = time.monotonic() + _AFTER_FAILURE_SECONDS
        while True:
            ended = [rank for rank in self._ranks if rank.process.poll() is not None]
            # After that: what those have said before they ended is there to be read.
            while ready := self._selector.select(timeout=0):
                for key, _ in ready:
                    self._take(key.data, lambda _: None)
            if (cause := self._said()) is not None:
                return cause
            alone = [rank for rank in ended if rank.process.returncode != EXIT_NEIGHBOUR_LOST]
            if alone or len(ended) == self.world or time.monotonic() > deadline:
                killed = [rank for rank in alone if rank.process.returncode < 0]
                return (killed or alone or [found])[0].death(self.world)
            time.sleep(0.01)

    def _said(self) -> TrimtabError | None:
        """The first rank's own words for what went wrong: an expected fault before any other."""
        answers = [rank.answer for rank in self._ranks]
        faults = [one for one in answers if isinstance(one, Failed)]
        crashes = [one for one in answers if isinstance(one, Crashed)]
        if crashes and os.environ.get("TRIMTAB_DEBUG"):
            sys.stderr.write("".join(crash.trace for crash in crashes))
        return next((fault.to_error() for fault in (*faults, *crashes)), None)

    def _outcome(self) -> dict[str, Any]:
        if (cause := self._said()) is not None:
            raise cause
        silent = [str(rank.number) for rank in self._ranks if rank.answer is None]
        if silent:
            raise EngineError(f"rank {', '.join(silent)} of {self.world} did not stop in time.")
        first = self._ranks[0].answer
        return first.result if isinstance(first, Done) else {}

    def _stop(self) -> None:
        """Ask for a checkpoint and an end; on a second Ctrl-C kill. Raises what kept ranks from saving."""
        try:
            for rank in self._ranks:
                rank.send(Stop())
            self._collect(lambda _: None, time.monotonic() + _STOP_SECONDS)
        except KeyboardInterrupt:
            self.close()
        except TrimtabError:
            self.close()
            raise
