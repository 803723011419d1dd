import subprocess
import sys
import time

import pytest

from trimtab.bench import memory

CHILD = """
import subprocess, sys, time
data = bytearray(b"x" * {size})
if {depth}:
    grandchild = "data = bytearray(b'x' * 40_000_000); print(1, flush=True); import time; time.sleep(60)"
    subprocess.run([sys.executable, "-c", grandchild])
print(1, flush=True)
time.sleep(60)
"""
FREES = """
import sys
data = bytearray(b"x" * 60_000_000)
print(1, flush=True)
sys.stdin.readline()
del data
print(1, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def child():
    started = []

    def start(size, depth=0):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD.format(size=size, depth=depth)], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        for pid in memory.tree([process.pid]) - {process.pid}:
            subprocess.run(["kill", "-9", str(pid)], check=True)
        process.kill()
        process.communicate()


def test_counts_a_process_and_its_descendants_once(child):
    process = child(30_000_000, depth=1)
    pids = memory.tree([process.pid])
    assert len(pids) == 2
    assert memory.tree(list(pids)) == pids
    assert 70_000_000 < memory.tree_bytes([process.pid]) < 130_000_000
    assert 30_000_000 < memory.process_bytes(process.pid) < 60_000_000


def test_gone_is_nothing(child):
    process = child(1)
    process.kill()
    process.wait()
    assert memory.process_bytes(process.pid) == 0
    assert memory.tree_bytes([process.pid]) == 0


def test_peak_remembers_what_was_freed():
    process = subprocess.Popen(
        [sys.executable, "-c", FREES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    peak = memory.Peak([process.pid], every_seconds=0.02)
    with peak:
        time.sleep(0.2)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
    assert peak.bytes > 60_000_000
    assert memory.process_bytes(process.pid) < 40_000_000
    process.kill()
    process.communicate()
