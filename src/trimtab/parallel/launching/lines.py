"""What parent and ranks say to each other: one JSON message a line, over the rank's stdin and stdout.

Down: `Job`, `Stop`, `End`. Up: `Ready`, `News` (from rank 0), then `Done` or `Failed`. No pickle, no torch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from trimtab.parallel.tasks import TaskName
from trimtab.spec import errors
from trimtab.spec.errors import TrimtabError

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


def encode(line: Line) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def decode_down(text: bytes) -> Job | Stop | End:
    return msgspec.json.decode(text, type=Job | Stop | End)


def decode_up(text: bytes) -> Ready | News | Done | Failed:
    return msgspec.json.decode(text, type=Ready | News | Done | Failed)
