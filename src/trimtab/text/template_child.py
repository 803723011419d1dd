"""Process "template": renders one chat template, over stdin and stdout, until stdin ends.

It runs text that came with a model, so it limits itself first: memory, files, no core dump. Before each piece of
work it has the kernel set a timer on its computing time and one on the clock, with the default action: they end
this process also in C code (one huge power, say) that no thread of Python's could interrupt. It must not import
anything but Jinja2 and the records of `templates`.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import jinja2
import msgspec

from trimtab.spec import lifeline
from trimtab.text.child import frame, limit_itself, receive
from trimtab.text.template_dialect import environment, variables_of
from trimtab.text.templates import Call, Reply, Setup

MEMORY_BYTES = 512 * 2**20
# Over this peak a process is replaced, so that memory which the interpreter keeps does not stay.
KEPT_BYTES = 128 * 2**20
_OPEN_FILES = 32
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


@contextlib.contextmanager
def _timed(cpu_seconds: float, seconds: float) -> Iterator[None]:
    """The kernel ends this process if the block takes longer."""
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def _told(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it needs too much memory"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    # Not all that a template can make fits in UTF-8. The point is set by whoever tells it.
    return (str(error)[:300].rstrip(".") or type(error).__name__).encode(errors="replace").decode()


def _compile(source: str) -> jinja2.Template | Reply:
    try:
        return environment().from_string(source)
    except Exception as error:  # noqa: BLE001 - constants are computed here, so it may raise anything
        line = f"line {error.lineno}: " if isinstance(error, jinja2.TemplateSyntaxError) else ""
        return Reply(error=line + _told(error))


def _render(template: jinja2.Template, setup: Setup, call: Call) -> Reply:
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate(variables_of(call, setup.variables)):
            pieces.append(piece)
            size += len(piece)
            if size > setup.max_text_bytes:
                break
        text = "".join(pieces)
        size = len(text.encode())
    except Exception as error:  # noqa: BLE001 - a template may raise anything; the answer is that it did
        return Reply(error=_told(error), spent=isinstance(error, MemoryError) or _spent())
    if size > setup.max_text_bytes:
        return Reply(error=f"the rendered text is over {setup.max_text_bytes} bytes", spent=_spent())
    return Reply(text=text, spent=_spent())


def _spent() -> bool:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT > KEPT_BYTES


def _serve(source: BinaryIO, sink: BinaryIO) -> None:
    def say(reply: Reply) -> None:
        sink.write(frame(reply))
        sink.flush()

    first = receive(source)
    if first is None:
        return
    setup: Setup = msgspec.json.decode(first, type=Setup)
    with _timed(setup.cpu_seconds, setup.seconds):
        template = _compile(setup.template)
    if isinstance(template, Reply):
        say(template)
        return
    say(Reply())
    while (asked := receive(source)) is not None:
        call: Call = msgspec.json.decode(asked, type=Call)
        with _timed(call.cpu_seconds, call.seconds):
            reply: Any = _render(template, setup, call)
        say(reply)


def main() -> None:
    lifeline.die_with_parent()
    limit_itself(memory_bytes=MEMORY_BYTES, open_files=_OPEN_FILES)
    _serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
