"""No process of ours outlives the one that started it, whatever it computes.

`processes.start` gives each child the end of a pipe of its own that nobody ever writes to; the other end closes
when the parent dies, however it dies. On Linux the kernel then sends SIGKILL by itself (`O_ASYNC`), which also
ends a child that is stopped, or in C code that never gives back the interpreter's lock. Unlike PR_SET_PDEATHSIG
this is about the parent *process*, not about the thread that started us, and a parent that was dead before the
watch began is seen too. Elsewhere a thread waits for the pipe. Neither uses CPU time while it waits: that is how a
worker that stands still is told from a busy one.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import threading

# Tells a child which descriptor is its end of the pipe.
VARIABLE = "TRIMTAB_LIFELINE"
_LOOK_SECONDS = 0.5


def die_with_parent(*, grace_seconds: float = 0.0) -> None:
    """From now on this process ends when its parent is gone; call it first thing, in the main thread.

    With a grace the process may end in good order first, told by the end of its stdin; the kernel's timer ends it
    when that takes too long.
    """
    # Whoever started us may ignore or block it, and that is inherited.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    parent, pipe = os.getppid(), _pipe()
    if pipe is not None and not grace_seconds and _ask_kernel(pipe):
        return
    watch = threading.Thread(
        target=_watch, args=(parent, pipe, grace_seconds), name="parent-watch", daemon=True
    )
    watch.start()


def _pipe() -> int | None:
    """Our end of the pipe; None where something else started this process."""
    # Not for the processes that we start.
    text = os.environ.pop(VARIABLE, "")
    if not text.isdecimal():
        return None
    try:
        os.set_inheritable(int(text), False)
    except OSError:
        return None
    return int(text)


def _ask_kernel(pipe: int) -> bool:
    """Whether the kernel will kill us when the other end closes. Ends this process if it is closed already."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    except OSError:
        return False  # a sandbox's kernel
    if _closed(pipe, 0):
        os._exit(1)
    return True


def _watch(parent: int, pipe: int | None, grace_seconds: float) -> None:
    if pipe is not None and not grace_seconds:
        _closed(pipe, None)
        os._exit(1)
    # The parent's id is looked at too: a fork of the parent would hold the pipe open.
    pause = threading.Event()
    while os.getppid() == parent and not (pipe is not None and _closed(pipe, 0)):
        pause.wait(_LOOK_SECONDS)
    if not grace_seconds:
        os._exit(1)
    # With nobody to handle SIGALRM the kernel ends us, even if no thread of Python's runs any more.
    signal.setitimer(signal.ITIMER_REAL, grace_seconds)


def _closed(pipe: int, milliseconds: float | None) -> bool:
    """Whether the other end is closed; None waits for it."""
    look = select.poll()
    look.register(pipe, select.POLLIN)
    return any(event & (select.POLLHUP | select.POLLIN) for _, event in look.poll(milliseconds))
