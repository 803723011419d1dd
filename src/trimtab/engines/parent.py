"""A process of ours must not outlive the one that started it.

A thread watches the parent's id: it also acts while the main thread loads a model. PR_SET_PDEATHSIG would be
simpler but fires when the *thread* that started us ends, which kills workers started from a pool.
"""

from __future__ import annotations

import os
import threading
import time

_CHECK_EVERY_SECONDS = 0.25


def die_with_parent() -> None:
    """From now on this process exits with code 1 soon after its parent is gone."""
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_CHECK_EVERY_SECONDS)
    os._exit(1)
