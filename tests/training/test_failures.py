"""Real ranks that are killed, stopped or interrupted in the middle of training: named, restarted, nothing lost."""

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import msgspec
import psutil
import pytest

from trimtab.parallel.launching.launch import launch
from trimtab.parallel.launching.start import Restarting
from trimtab.spec.errors import RankLostError, UsageError
from trimtab.spec.layout import Layout
from trimtab.training.job import TrainResult

PAIR = Layout(data=2)


def run(group, job, on_event=None):
    return msgspec.convert(group.run("train", msgspec.to_builtins(job), on_event), TrainResult)


class Once:
    """An event's handler that, when training has begun, does something once."""

    def __init__(self, act):
        self.act, self.at = act, None

    def __call__(self, event):
        if self.at is None and event["kind"] == "progress":
            self.at = time.monotonic()
            self.act()


def test_a_stopped_rank_is_named_with_the_collective_that_waits_for_it(make_job):
    with launch(PAIR, threads=1, hang_seconds=4) as group:
        pids = group.pids
        stop = Once(lambda: os.kill(pids[1], signal.SIGSTOP))
        with pytest.raises(RankLostError, match="rank 1 of 2 hangs: nothing from it for") as caught:
            run(group, make_job(tokens=64 * 100_000), stop)
        assert "training" in caught.value.message
        # A gradient's all_reduce, or in the second step the broadcast with which DDP rebuilds its buckets.
        assert re.search(r"Rank 0 waits for it in (all_reduce|broadcast) #\d+ of ", caught.value.message)
        assert os.uname().nodename in caught.value.where
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_killed_rank_is_named_within_ten_seconds(make_job):
    with launch(PAIR, threads=1) as group:
        pids = group.pids
        kill = Once(lambda: os.kill(pids[1], signal.SIGKILL))
        with pytest.raises(RankLostError, match="rank 1 of 2 was killed by SIGKILL") as caught:
            run(group, make_job(tokens=64 * 100_000), kill)
        assert time.monotonic() - kill.at < 10
        assert caught.value.where == f"process {pids[1]} on {os.uname().nodename}"


def test_a_rank_that_fails_by_itself_is_blamed_and_not_its_neighbour(make_job, tmp_path):
    """It ends with a plain exit code; the neighbour, which lost it, must not be named."""
    with launch(PAIR, threads=1) as group:
        victim = group.pids[1]
        # The default action of SIGUSR1 ends a process, as a fault of a library would.
        end = Once(lambda: os.kill(victim, signal.SIGUSR1))
        with pytest.raises(RankLostError, match="rank 1 of 2 was killed by SIGUSR1"):
            run(group, make_job(tokens=64 * 100_000), end)


class Fake:
    """A group that loses ranks so many times."""

    def __init__(self, losses, log):
        self.losses, self.log = losses, log
        log.append("start")

    def run(self, _task, job, _on_event=None):
        self.log.append(job["resume"])
        if self.losses:
            self.losses.pop()
            raise RankLostError("rank 1 of 2 was killed.", where="process 5 on here")
        return {"fine": True}

    def close(self):
        self.log.append("close")


def test_restarts_are_counted_told_and_resume():
    losses, log, events = [1, 1], [], []
    group = Restarting(lambda: Fake(losses, log), 2)
    assert group.run("train", {"resume": False}, events.append) == {"fine": True}
    assert log == ["start", False, "close", "start", True, "close", "start", True]
    assert (
        "process 5 on here: rank 1 of 2 was killed. — starting again, 1 restarts left" in events[0]["message"]
    )
    losses.append(1)
    with pytest.raises(RankLostError):
        group.run("train", {"resume": False}, events.append)


def test_other_faults_are_not_tried_again(make_job):
    class Wrong(Fake):
        def run(self, *_):
            raise UsageError("no.")

    log = []
    with pytest.raises(UsageError):
        Restarting(lambda: Wrong([], log), 5).run("train", {})
    assert log == ["start"]


def kill_and_compare(make_job, tmp_path, times, seed):
    """`kill -9` of a random rank at random moments of training, saving and the end; each run must end as if not."""
    chance = random.Random(seed)
    steps = 150
    settings = {"tokens": 64 * steps, "checkpoint_seconds": 0.3}
    with launch(PAIR, threads=1) as group:
        began = Once(lambda: None)
        wanted = run(
            group,
            make_job(**settings, checkpoints=str(tmp_path / "c"), output=str(tmp_path / "whole")),
            began,
        )
        took = time.monotonic() - began.at
    killed, number = 0, 0
    while killed < times:
        number += 1
        assert number <= 3 * times, f"only {killed} of {number} came in time"
        job = make_job(
            **settings, checkpoints=str(tmp_path / f"c{number}"), output=str(tmp_path / f"out{number}")
        )
        group = Restarting(lambda: launch(PAIR, threads=1), 1)
        victim = chance.choice(group._group.pids)
        timer = threading.Timer(chance.uniform(0, took), _kill, (victim,))
        events = []
        start = Once(timer.start)

        def note(event, start=start, events=events):
            start(event)
            events.append(event)

        try:
            found = run(group, job, note)
            ended = time.monotonic()
        finally:
            timer.cancel()
            group.close()
        if any(event["kind"] == "warning" for event in events):
            killed += 1
        else:
            # It came too late: the machine is faster now.
            took = min(took, ended - start.at)
        assert (found.loss, found.validation_loss) == (wanted.loss, wanted.validation_loss)
        assert found.curve == wanted.curve
        assert found.steps == steps


def _kill(pid):
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_killed_at_a_random_moment_it_ends_the_same(make_job, tmp_path):
    kill_and_compare(make_job, tmp_path, times=1, seed=time.time())


@pytest.mark.slow
def test_killed_twenty_times_it_ends_the_same(make_job, tmp_path):
    kill_and_compare(make_job, tmp_path, times=20, seed=1)


PARENT = """
    import signal, sys
    import msgspec
    from trimtab.parallel.launching.launch import launch
    from trimtab.spec.layout import Layout

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with launch(Layout(data=2), threads=1) as group:
        print(*group.pids, flush=True)
        try:
            group.run("train", msgspec.json.decode(sys.stdin.read()), lambda event: print(event, flush=True))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


def test_ctrl_c_saves_and_leaves_nothing(make_job, tmp_path):
    """In a process of its own, as a terminal would send it."""
    folder = tmp_path / "checkpoints"
    job = make_job(tokens=64 * 100_000, checkpoints=str(folder), checkpoint_seconds=1e9)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        parent.stdin.write(msgspec.json.encode(job).decode())
        parent.stdin.close()
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert "progress" in parent.stdout.readline()
        parent.send_signal(signal.SIGINT)
        assert parent.stdout.read().endswith("interrupted\n")
        assert parent.wait(60) == 0
    assert len(list(folder.glob("step-*"))) == 1
    assert not any(psutil.pid_exists(pid) for pid in pids)
