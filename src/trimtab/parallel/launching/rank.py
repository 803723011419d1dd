"""Process "rank": one member of a group. Reads jobs from stdin, answers on stdout, says all else on stderr.

It dies with its parent (`spec.lifeline`), and ends when stdin does. A fault is an answer, said before a neighbour can
notice that this rank is gone; one that nobody expected also ends the process. So does the loss of a
neighbour, with a code of its own, so that the parent blames the one that was lost.
"""

from __future__ import annotations

import argparse
import importlib
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from trimtab.parallel.launching.again import start_again
from trimtab.parallel.launching.lines import (
    EXIT_NEIGHBOUR_LOST,
    Crashed,
    Done,
    Failed,
    Job,
    Line,
    News,
    Ready,
    Stop,
    decode_down,
    encode,
)
from trimtab.parallel.launching.pulse import Pulse
from trimtab.parallel.tasks import TASKS, TaskName
from trimtab.spec import lifeline
from trimtab.spec.errors import TrimtabError
from trimtab.store.durable import refusal, refused

if TYPE_CHECKING:
    from trimtab.parallel.ranks import Ranks

# Of an error's own words; compilers add pages.
_SAID_CHARACTERS = 600


class _Inbox:
    """Jobs from stdin, read by a thread, so that a stop or the end of input is seen during a job."""

    def __init__(self, stream: BinaryIO) -> None:
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stop = threading.Event()
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: BinaryIO) -> None:
        for text in stream:
            line = decode_down(text)
            if isinstance(line, Stop):
                self._stop.set()
            elif isinstance(line, Job):
                self._stop.clear()
                self._jobs.put(line)
        # The parent is gone or has closed the group: nobody wants an answer.
        os._exit(0)

    def next_job(self) -> Job:
        return self._jobs.get()

    def wants_stop(self) -> bool:
        return self._stop.is_set()


def load_tasks() -> dict[TaskName, Any]:
    """Every task's module, ready to run."""
    tasks = {name: importlib.import_module(module) for name, module in TASKS.items()}
    for task in tasks.values():
        task.prepare()
    return tasks


def attempt(
    task: Any,
    job: dict[str, Any],
    ranks: Ranks,
    report: Callable[[dict[str, Any]], None],
    wants_stop: Callable[[], bool],
) -> Done | Failed | Crashed:
    """The task's answer. The loss of a neighbour ends the process."""
    try:
        return Done(result=task.run(job, ranks, report, wants_stop))
    except TrimtabError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001 (whatever it is, the parent must hear it, and from this rank)
        if isinstance(error, RuntimeError) and lost_neighbour(error):
            print(f"lost a neighbour: {error}", file=sys.__stderr__, flush=True)
            # Threads of torch may wait for the lost one for minutes.
            os._exit(EXIT_NEIGHBOUR_LOST)
        if (no_room := refusal(error)) is not None:
            return failed(refused(no_room, _place(job), remedy=f"then: {start_again(job)}"))
        return crashed(error, ranks)


def failed(error: TrimtabError) -> Failed:
    return Failed(error=type(error).__name__, message=error.message, where=error.where, remedy=error.remedy)


def crashed(error: Exception, ranks: Ranks) -> Crashed:
    """What the parent is told of an error. A cause that was raised again as another error is the one to tell."""
    said = " ".join(str(error).split())[:_SAID_CHARACTERS]
    return Crashed(
        who=f"rank {ranks.rank} of {ranks.world}",
        place=f"process {os.getpid()} on {socket.gethostname()}",
        error=f"{type(error).__name__}: {said}" if said else type(error).__name__,
        trace="".join(traceback.format_exception(error)),
        short_of_memory=short_of_memory(error),
    )


def short_of_memory(error: Exception) -> bool:
    """Whether this process, or its device, has no more memory to give."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _place(job: dict[str, Any]) -> Path:
    """What a job writes to, for people."""
    return Path(job.get("output") or job.get("scratch") or ".")


def lost_neighbour(error: RuntimeError) -> bool:
    """Whether a collective failed because another process went away."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/transport" in str(error)


def _take_stdout() -> BinaryIO:
    """Keep stdout for answers alone: whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return answers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rank")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--world", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--store", type=Path, required=True)
    return parser.parse_args()


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug: its traceback is the last thing said, and the process ends at once.

    The ordinary end would wait for the thread that reads stdin, and abort with a message of its own.
    """
    # torch puts a hook of its own around this one, which holds back what is written to `sys.stderr` until it ends.
    print("".join(traceback.format_exception(kind, error, trace)), file=sys.__stderr__, flush=True)
    os._exit(1)


def main() -> None:
    sys.excepthook = _end
    lifeline.die_with_parent()
    arguments = _arguments()
    answers = _take_stdout()
    inbox = _Inbox(sys.stdin.buffer)
    pulse = Pulse(arguments.store.parent, arguments.rank)
    pulse.start()

    import torch

    from trimtab.parallel.ranks import join

    torch.set_num_threads(arguments.threads)
    ranks = join(arguments.rank, arguments.world, arguments.store, pulse)

    def say(line: Line) -> None:
        answers.write(encode(line))

    say(Ready(pid=os.getpid()))
    tasks = load_tasks()
    while True:
        pulse.at("waiting for work")
        job = inbox.next_job()
        answer = attempt(
            tasks[job.task],
            job.job,
            ranks,
            (lambda event: say(News(event=event))) if ranks.first else (lambda _: None),
            inbox.wants_stop,
        )
        say(answer)
        if isinstance(answer, Crashed):
            os._exit(1)


if __name__ == "__main__":
    main()
