"""A model's chat template, rendered in a child process that can be killed.

Templates come with models, so they are not trusted: Jinja2's immutable sandbox, no network or files of ours
in reach of a variable, bounded memory, output, computing time and waiting. The child is started again after it
was killed.
"""

from __future__ import annotations

import select
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec
import psutil

from trimtab.spec import processes
from trimtab.spec.errors import EngineError, ModelError, UsageError
from trimtab.text.child import LENGTH, frame
from trimtab.text.template_files import find_template

# Computing time: a template takes well under a millisecond, a megabyte of tiny messages some hundred.
RENDER_CPU_SECONDS, COMPILE_CPU_SECONDS = 1.0, 2.0
# On the clock: the rest is a busy machine.
RENDER_SECONDS, START_SECONDS = 8.0, 30.0
# How often a process that says nothing is asked whether somebody has stopped it.
LOOK_SECONDS = 0.5
MAX_TEXT_BYTES = 2**20
_TOO_LONG = "it takes too long"


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told first."""

    template: str
    variables: dict[str, str]
    max_text_bytes: int
    cpu_seconds: float
    seconds: float


class Call(msgspec.Struct, frozen=True, kw_only=True):
    messages: list[dict[str, Any]]
    add_generation_prompt: bool
    cpu_seconds: float
    seconds: float
    tools: list[dict[str, Any]] | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`text`, or in `error` why there is none. `spent`: the child should be replaced."""

    text: str | None = None
    error: str | None = None
    spent: bool = False


class ChatTemplate:
    """Safe to use from several threads; renders one at a time. The child ends with this process.

    `where` names the file that the template stands in.
    """

    def __init__(self, source: str, variables: dict[str, str], *, where: str | None = None) -> None:
        self._source, self._variables, self._where = source, variables, where
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False

    @property
    def source(self) -> str:
        return self._source

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """None when the model has no chat template. Raises `ModelError` for one that cannot be used."""
        found = find_template(folder)
        if found is None:
            return None
        template = cls(found.source, found.variables, where=str(found.path))
        try:
            template.check()
        except BaseException:
            template.close()
            raise
        return template

    def another(self) -> ChatTemplate:
        """The same template with a process of its own, started when it is first needed."""
        return ChatTemplate(self._source, self._variables, where=self._where)

    def check(self) -> None:
        """Start the child. Raises `ModelError` for a template that cannot be compiled."""
        with self._lock:
            self._started()

    def render(
        self,
        messages: list[dict[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: list[dict[str, Any]] | None = None,
    ) -> str:
        """Raises `UsageError` when the template refuses the messages, or computes too long or too much;
        `EngineError` when its process does not answer.
        """
        with self._lock:
            reply = self._ask(messages, tools, add_generation_prompt)
        if reply.text is None:
            raise UsageError(
                f"The model's chat template refused the messages: {reply.error}.",
                where="messages",
                remedy="Send messages in the order and the roles that this model was trained on.",
            )
        return reply.text

    def close(self) -> None:
        """At once, whatever is being rendered."""
        self._closed = True
        child = self._child
        if child is not None:
            child.kill()
            child.wait()
        if self._lock.acquire(blocking=False):
            self._end()
            self._lock.release()

    def _ask(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, add_generation_prompt: bool
    ) -> Reply:
        call = frame(
            Call(
                messages=messages,
                tools=tools,
                add_generation_prompt=add_generation_prompt,
                cpu_seconds=RENDER_CPU_SECONDS,
                seconds=RENDER_SECONDS,
            )
        )
        # A process that stands still, or was killed from outside, says nothing of the messages: once more.
        for _ in range(2):
            try:
                reply = self._exchange(self._started(), call, RENDER_SECONDS)
            except (TimeoutError, OSError, EOFError) as error:
                if self._end() == signal.SIGPROF or isinstance(error, _StillBusyError):
                    return Reply(error=_TOO_LONG)
                continue
            if reply.spent:
                self._end()
            return reply
        raise EngineError("The chat template's process does not answer.", remedy="Try again.")

    def _started(self) -> subprocess.Popen[bytes]:
        """The child, its template compiled."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        if self._closed:
            raise EngineError("The chat template is closed.")
        setup = Setup(
            template=self._source,
            variables=self._variables,
            max_text_bytes=MAX_TEXT_BYTES,
            cpu_seconds=COMPILE_CPU_SECONDS,
            seconds=START_SECONDS,
        )
        try:
            # One arena: the memory limit counts what is only set aside, too.
            child = processes.start(
                "template",
                environment={"MALLOC_ARENA_MAX": "1"},
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            raise EngineError(f"The chat template's process cannot be started: {error.strerror}.") from error
        self._child = child
        if self._closed:
            child.kill()
        try:
            reply = self._exchange(child, frame(setup), START_SECONDS)
        except (TimeoutError, OSError, EOFError) as error:
            number = self._end()
            if number == signal.SIGPROF:
                raise self._unreadable(_TOO_LONG) from error
            if number and number != signal.SIGKILL:
                raise self._unreadable(f"it crashes its process ({signal.Signals(number).name})") from error
            raise EngineError("The chat template's process did not start.") from error
        if reply.error:
            self._end()
            raise self._unreadable(reply.error)
        return child

    def _unreadable(self, why: str) -> ModelError:
        return ModelError(
            f"The model's chat template cannot be read: {why}.",
            where=self._where,
            remedy="Mend the template, or remove it to serve completions only.",
        )

    def _end(self) -> int:
        """Kill the child if it lives, and reap it; the signal that ended it (SIGKILL: ours), or 0."""
        child, self._child = self._child, None
        if child is None:
            return 0
        child.kill()
        status = child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        return max(0, -status)

    def _exchange(self, child: subprocess.Popen[bytes], request: bytes, seconds: float) -> Reply:
        """Raises `TimeoutError`, or `EOFError` or `OSError` where the child has ended."""
        if child.stdin is None or child.stdout is None:
            raise EOFError
        until = time.monotonic() + seconds
        _write(child, child.stdin, request, until)
        (length,) = LENGTH.unpack(_read(child, child.stdout, LENGTH.size, until))
        # JSON may write one byte as six.
        if length > 8 * MAX_TEXT_BYTES:
            raise EOFError
        try:
            return msgspec.json.decode(_read(child, child.stdout, length, until), type=Reply)
        except msgspec.DecodeError as error:
            raise EOFError from error


class _StillBusyError(TimeoutError):
    """It is late, and not because it stands still."""


def _write(child: subprocess.Popen[bytes], pipe: IO[bytes], data: bytes, until: float) -> None:
    """A child that does not read must not hold us: a pipe takes 64 KiB and no more."""
    left = memoryview(data)
    while left:
        _wait(child, pipe, select.POLLOUT, until)
        # Where a pipe polls as writable, so much never blocks.
        left = left[pipe.write(left[: select.PIPE_BUF]) :]


def _read(child: subprocess.Popen[bytes], pipe: IO[bytes], count: int, until: float) -> bytes:
    data = bytearray()
    while len(data) < count:
        _wait(child, pipe, select.POLLIN, until)
        part = pipe.read(count - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _wait(child: subprocess.Popen[bytes], pipe: IO[bytes], event: int, until: float) -> None:
    """Until the pipe is ready. Raises `TimeoutError` when it is late, and soon for a child that is stopped."""
    look = select.poll()
    look.register(pipe, event)
    used = None
    while not look.poll(1000 * max(0.0, min(LOOK_SECONDS, until - time.monotonic()))):
        status, now = _looked_at(child.pid)
        used = now if used is None else used
        if status == psutil.STATUS_STOPPED:
            raise TimeoutError
        if time.monotonic() > until:
            raise _StillBusyError if now > used else TimeoutError


def _looked_at(pid: int) -> tuple[str, float]:
    """A process's state and the CPU time that it has used."""
    try:
        process = psutil.Process(pid)
        return process.status(), sum(process.cpu_times()[:2])
    except (psutil.Error, OSError):
        return "", 0.0
