"""How the command line speaks to people: tables on stdout, all else on stderr.

Progress is a bar on a terminal and plain lines elsewhere. Nothing heavy is imported until something is shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trimtab.cli.output import printable
from trimtab.spec.progress import Event, OnEvent
from trimtab.spec.units import format_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LINE_EVERY_SECONDS = 10.0


def say(text: str) -> None:
    """A line for a person, on stderr."""
    print(text, file=sys.stderr, flush=True)


# Where output goes to a file or a pipe there is no edge to wrap at.
PIPE_WIDTH = 160


def console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on stdout; numbers (every column but the first) stand right."""
    from rich.table import Table

    shown = Table(title=_plain(title), title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        shown.add_column(_plain(column), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*map(_plain, row))
    console().print(shown)


def _plain(text: str) -> Text:
    """A cell as this stdout can show it; brackets in it, such as those of an interval, are no markup."""
    from rich.text import Text

    return Text(printable(text, sys.stdout))


class Progress:
    """One long piece of work. `update` takes the fraction done and a short text such as `loss 3.1 · 2,400 tokens/s`;
    that of the whole is said at the end.
    """

    def __init__(self, label: str) -> None:
        self._label, self._started, self._shown = label, time.monotonic(), 0.0
        # A resumed stage does not begin at nothing; time left is of what was done since.
        self._first: float | None = None
        self._last_words = ""
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description:28}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}% {task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(label, total=1.0, note="")
        else:
            say(f"{label} …")

    def update(self, fraction: float, note: str = "") -> None:
        self._first = fraction if self._first is None else self._first
        self._last_words = f" · {note}" if note and fraction == 1 else ""
        if self._bar is not None:
            self._bar.update(self._task, completed=fraction, note=note)
            return
        now = time.monotonic()
        if now - self._shown < LINE_EVERY_SECONDS:
            return
        self._shown = now
        elapsed = now - self._started
        parts = [f"{self._label}: {fraction:.0%}", note]
        if fraction > self._first and fraction < 1:
            left = elapsed * (1 - fraction) / (fraction - self._first)
            parts.append(f"{format_duration(left)} left")
        say(" · ".join(part for part in parts if part))

    def close(self, *, done: bool = True) -> None:
        """`done` is False where the work was broken off; an error then says what there is to say."""
        took = format_duration(time.monotonic() - self._started)
        if self._bar is not None:
            self._bar.stop()
        elif done:
            say(f"{self._label}: done in {took}{self._last_words}")


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    bar = Progress(label)
    try:
        yield bar
    except BaseException:
        bar.close(done=False)
        raise
    bar.close()


@contextmanager
def stages() -> Iterator[OnEvent]:
    """Shows a run's events: one progress bar a stage, the next replacing the last."""
    current: list[tuple[str, Progress]] = []

    def show(event: Event) -> None:
        if event.warning or event.remark:
            say(event.remark or f"warning: {event.warning}")
            return
        if not current or current[0][0] != event.stage:
            while current:
                current.pop()[1].close()
            current.append((event.stage, Progress(event.stage)))
        current[0][1].update(event.fraction, event.note)

    try:
        yield show
    except BaseException:
        for _, bar in current:
            bar.close(done=False)
        raise
    for _, bar in current:
        bar.close()
