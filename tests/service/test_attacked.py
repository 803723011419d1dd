"""Every attack on the edge at once, for two minutes, beside one client who only wants his answers."""

import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

ATTACKERS = Path(__file__).parent / "attackers.py"
SECONDS = 120
LONGEST_WAIT = 1.0
MOST_GROWTH = 100 * 2**20


class Watched:
    """A good client in a thread of its own: streams, one after the other, and every wait between two events."""

    def __init__(self, running):
        self._running = running
        self.waits, self.answers, self.faults = [], 0, []
        self.stopped = False
        self.thread = Thread(target=self._loop)

    def _loop(self):
        while not self.stopped:
            client = self._running.client()
            try:
                for _ in range(20):
                    self._answer(client)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
                self.faults.append(f"{type(error).__name__}: {error}")
            time.sleep(0.05)

    def _answer(self, client):
        last, text = time.monotonic(), ""
        stream = client.completions.create(model="fake", prompt="hi", max_tokens=40, stream=True)
        for chunk in stream:
            now = time.monotonic()
            self.waits.append(now - last)
            last, text = now, text + chunk.choices[0].text
        assert len(text.encode()) >= 40
        self.answers += 1


@pytest.mark.slow
def test_nobody_is_made_to_wait_or_loses_an_answer(start_fake, until):
    running = start_fake(step_seconds=0.002, max_batch=64, max_queue=64)
    watched = Watched(running)
    before = running.gateway.memory_info().rss
    worker = running.workers()[0].pid
    arguments = [running.host, str(running.port), running.key, "fake", str(SECONDS)]
    attackers = subprocess.Popen(
        [sys.executable, str(ATTACKERS), *arguments], stdout=subprocess.PIPE, text=True
    )
    watched.thread.start()
    printed, _ = attackers.communicate(timeout=SECONDS + 60)
    watched.stopped = True
    watched.thread.join(30)
    rounds = json.loads(printed)
    assert attackers.returncode == 0
    assert min(rounds.values()) >= 1, rounds
    assert watched.faults == []
    assert watched.answers > SECONDS
    assert max(watched.waits) < LONGEST_WAIT
    assert running.workers()[0].pid == worker
    # Nothing of the attackers is left: no connection, no answer in work, no memory.
    assert until(lambda: len(running.gateway.net_connections(kind="tcp")) < 20, seconds=40)
    assert running.gateway.memory_info().rss - before < MOST_GROWTH
