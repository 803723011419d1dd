"""Real rank processes, in two of them where it matters. Training is the task; its own tests are elsewhere."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from trimtab.parallel.launching.launch import launch
from trimtab.parallel.launching.lines import Failed, News, decode_up, encode
from trimtab.parallel.tasks import TASKS
from trimtab.spec.errors import DataError, EngineError, ModelError, TrimtabError
from trimtab.spec.layout import Layout

NOWHERE = {"model": "/nowhere", "data": "/nowhere", "output": "/nowhere", "tokens": 1}


def gone(pids):
    """Waits until none of these processes runs."""
    end = time.monotonic() + 15
    while alive := [pid for pid in pids if psutil.pid_exists(pid) and not _zombie(pid)]:
        if time.monotonic() > end:
            return alive
        time.sleep(0.05)
    return []


def _zombie(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_every_task_of_the_table_exists():
    import importlib

    for module in TASKS.values():
        task = importlib.import_module(module)
        assert callable(task.run)
        task.prepare()


def test_lines_survive_the_trip():
    news = News(event={"kind": "progress", "loss": 1.5, "text": "a\nb"})
    assert encode(news).count(b"\n") == 1
    assert decode_up(encode(news)) == news


def test_a_failure_names_only_errors_of_ours():
    fault = Failed(error="DataError", message="no text.", where="f:1", remedy="Add some.").to_error()
    assert type(fault) is DataError
    assert (fault.where, fault.remedy) == ("f:1", "Add some.")
    assert type(Failed(error="annotations", message="x").to_error()) is TrimtabError
    assert type(Failed(error="EXIT_DONE", message="x").to_error()) is TrimtabError


def test_a_fault_of_the_task_comes_back_as_itself_and_leaves_no_process():
    with launch(Layout(data=2)) as group:
        pids = group.pids
        assert len(set(pids)) == 2
        with pytest.raises(ModelError, match="no such folder"):
            group.run("train", NOWHERE)
        with pytest.raises(EngineError, match="has stopped"):
            group.run("train", NOWHERE)
    assert gone(pids) == []


def test_a_killed_rank_is_named():
    with launch(Layout(data=2)) as group:
        pids = group.pids
        threading.Timer(0.5, os.kill, (pids[1], signal.SIGKILL)).start()
        with pytest.raises(EngineError, match="rank 1 of 2 was killed by SIGKILL") as caught:
            group.run("train", NOWHERE | {"data": "/dev/stdin/never"})
        assert str(pids[1]) in str(caught.value)
    assert gone(pids) == []


def test_an_unused_group_closes():
    with launch(Layout(data=2)) as group:
        pids = group.pids
    assert gone(pids) == []


def test_ranks_die_with_a_parent_that_is_killed():
    code = textwrap.dedent("""
        from trimtab.parallel.launching.launch import launch
        from trimtab.spec.layout import Layout
        import time
        group = launch(Layout(data=2))
        print(*group.pids, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.kill()
    assert gone(pids) == []
