"""What parent and ranks say to each other: one JSON message a line, over the rank's stdin and stdout.

Down: `Job`, `Stop`, `End`. Up: `Ready`, `News` (from rank 0), then `Done`, `Failed` or `Crashed`. No pickle, no torch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trimtab.parallel.launching.again import LOOK_CLOSER
from trimtab.parallel.tasks import TaskName
from trimtab.spec import errors
from trimtab.spec.errors import EngineError, RankLostError, TrimtabError

# How a rank ends that has lost another: the parent then looks for the one that was lost.
EXIT_NEIGHBOUR_LOST = 77


class Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages."""


class Job(Line, tag="job", frozen=True, kw_only=True):
    task: TaskName
    job: dict[str, Any]


class Stop(Line, tag="stop", frozen=True, kw_only=True):
    """Save what there is and answer `Done` soon."""


class End(Line, tag="end", frozen=True, kw_only=True):
    """No more jobs will come."""


class Ready(Line, tag="ready", frozen=True, kw_only=True):
    pid: int


class News(Line, tag="news", frozen=True, kw_only=True):
    event: dict[str, Any]


class Done(Line, tag="done", frozen=True, kw_only=True):
    result: dict[str, Any]


class Failed(Line, tag="failed", frozen=True, kw_only=True):
    """An expected fault: the name of its class in `spec.errors`, and what it says."""

    error: str
    message: str
    where: str | None = None
    remedy: str | None = None

    def to_error(self) -> TrimtabError:
        kind = getattr(errors, self.error, TrimtabError)
        known = kind if isinstance(kind, type) and issubclass(kind, TrimtabError) else TrimtabError
        return known(self.message, where=self.where, remedy=self.remedy)


class Crashed(Line, tag="crashed", frozen=True, kw_only=True):
    """A fault that nobody expected, and the end of its process: what was raised, and the trace of it.

    `short_of_memory`: it would be so again with the same job.
    """

    who: str
    place: str
    error: str
    trace: str
    short_of_memory: bool = False

    def to_error(self) -> TrimtabError:
        if self.short_of_memory:
            return EngineError(
                f"{self.who} ran out of memory: {self.error}",
                where=self.place,
                remedy="Use a smaller micro_batch, recompute, or a layout that shares more.",
            )
        return RankLostError(f"{self.who} failed: {self.error}", where=self.place, remedy=LOOK_CLOSER)


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode_down(text: bytes) -> Job | Stop | End:
    return msgspec.json.decode(text, type=Job | Stop | End)


def decode_up(text: bytes) -> Ready | News | Done | Failed | Crashed:
    return msgspec.json.decode(text, type=Ready | News | Done | Failed | Crashed)
