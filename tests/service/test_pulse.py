"""Life signs: messages first, else CPU time to the nanosecond; a stopped process shows neither."""

import os
import signal
import subprocess
import sys
import time

import psutil

from trimtab.service.pulse import Pulse, cpu_seconds


def start(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_cpu_time_moves_only_with_work():
    with start("import time\nwhile True: pass") as process:
        time.sleep(0.3)
        first = cpu_seconds(process.pid)
        time.sleep(0.3)
        second = cpu_seconds(process.pid)
        assert second > first
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.1)
        stopped = cpu_seconds(process.pid)
        time.sleep(0.3)
        assert cpu_seconds(process.pid) == stopped
        process.kill()
    assert cpu_seconds(process.pid) == 0.0


def test_a_tiny_sign_of_life_is_seen():
    """An idle worker wakes for microseconds; ticks of 10 ms would not show it."""
    with start("import time\nwhile True: time.sleep(0.05)") as process:
        time.sleep(0.5)
        first = cpu_seconds(process.pid)
        time.sleep(0.3)
        assert cpu_seconds(process.pid) != first
        process.kill()


def test_children_count_where_asked():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with start(code) as process:
        time.sleep(0.6)
        own, first = cpu_seconds(process.pid), cpu_seconds(process.pid, children=True)
        time.sleep(0.3)
        assert cpu_seconds(process.pid) == own
        assert cpu_seconds(process.pid, children=True) > first
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()


def test_standstill_is_measured_from_the_last_sign():
    with start("import time; time.sleep(60)") as process:
        time.sleep(0.3)
        pulse = Pulse(process.pid, 100.0)
        assert pulse.standstill(1, 101.0) == 0.0
        pulse.standstill(1, 102.0)  # the CPU time is read for the first time, which counts as a sign
        assert pulse.standstill(1, 105.0) == 3.0
        assert pulse.standstill(2, 106.0) == 0.0
        process.kill()
