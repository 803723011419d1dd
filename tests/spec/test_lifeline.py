"""No process of ours outlives its parent: kernel-level, for every process of the table."""

import ast
import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from trimtab.spec import lifeline, processes

HERE = Path(__file__).parent


def runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end and runs(pid):
        time.sleep(0.02)
    return not runs(pid)


@pytest.mark.parametrize("how", ["sleeps", "computes", "stopped", "late", "grace"])
def test_a_child_dies_with_its_killed_parent_whatever_it_does(how):
    command = [sys.executable, str(HERE / "lifeline_children.py"), "parent", how]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        pid = int(parent.stdout.readline())
        if how == "stopped":
            while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
        assert runs(pid)
        parent.kill()
        parent.wait()
        assert gone(pid)


def armed(pid):
    """Whether the kernel watches the lifeline: a descriptor with O_ASYNC."""
    for each in Path(f"/proc/{pid}/fdinfo").iterdir():
        flags = next(line for line in each.read_text().splitlines() if line.startswith("flags:"))
        if int(flags.split()[1], 8) & os.O_ASYNC:
            return True
    return False


@pytest.mark.parametrize("name", ["build", "rank", "template", "load"])
def test_a_stopped_process_of_ours_dies_with_its_killed_parent(name):
    """Stopped, it sees no end of its input and runs no thread: only the kernel can end it."""
    command = [sys.executable, str(HERE / "lifeline_children.py"), "real", name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        until = time.monotonic() + 20
        while not armed(pid) and time.monotonic() < until:
            time.sleep(0.01)
        psutil.Process(pid).suspend()
        parent.kill()
        parent.wait()
        assert gone(pid)


def test_a_child_lives_on_when_the_thread_that_started_it_ends():
    started = []
    thread = threading.Thread(
        target=lambda: started.append(processes.start("load", stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    )
    thread.start()
    thread.join()
    (child,) = started
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(1.5)
    child.communicate()
    assert child.returncode == 0


def test_watching_uses_no_cpu_time():
    """A worker counts as dead when it shows neither a message nor CPU time: the watch must not count as life."""
    code = (
        "import time; from trimtab.spec import lifeline\n"
        "lifeline.die_with_parent(); print(1, flush=True); time.sleep(99)"
    )
    held, ours = os.pipe()
    environment = {**os.environ, lifeline.VARIABLE: str(held)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, pass_fds=(held,)
    ) as child:
        os.close(held)
        child.stdout.readline()
        time.sleep(0.2)
        before = psutil.Process(child.pid).num_ctx_switches()
        time.sleep(1.2)
        assert psutil.Process(child.pid).num_ctx_switches() == before
        os.close(ours)
        assert child.wait(5) != 0


@pytest.mark.parametrize("name", processes.MODULES)
def test_every_process_of_the_table_holds_its_lifeline_first(name):
    source = Path(importlib.util.find_spec(processes.MODULES[name]).origin).read_text(encoding="utf-8")
    (main,) = [
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "main"
    ]
    calls = [node for node in ast.walk(main) if isinstance(node, ast.Call)]
    first = min(calls, key=lambda node: (node.lineno, node.col_offset))
    assert ast.unparse(first.func) == "lifeline.die_with_parent"
