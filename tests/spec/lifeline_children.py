"""Processes for `test_lifeline`: a parent that starts one child of the table, and children that never end."""

import os
import signal
import subprocess
import sys
import time

from trimtab.spec import lifeline, processes


def child(how):
    if how == "late":
        # The parent is dead before the watch begins.
        time.sleep(1.0)
    lifeline.die_with_parent(grace_seconds=0.5 if how == "grace" else 0.0)
    print(os.getpid(), flush=True)
    if how == "computes":
        10 ** (10**9)  # in C, for minutes, without giving back the interpreter's lock
    elif how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(600)


def parent(how):
    processes.MODULES["child"] = "lifeline_children"
    kept = processes.start("child", ["child", how])
    if how == "late":
        print(kept.pid, flush=True)
    time.sleep(600)


def real(name):
    """Start that process of the table with its input open, and say its id."""
    arguments = ["--rank=0", "--world=1", "--threads=1", "--store=nowhere/store"] if name == "rank" else []
    kept = processes.start(name, arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(kept.pid, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    {"child": child, "parent": parent, "real": real}[sys.argv[1]](sys.argv[2])
