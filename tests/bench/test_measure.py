import os
from collections import Counter
from pathlib import Path

import pytest

from trimtab.bench import load
from trimtab.bench.generator import Generator
from trimtab.bench.load import Target, measure, schedule, speedup
from trimtab.spec.errors import EngineError, UsageError

SIZES = {"prompt_tokens": 4, "output_tokens": 6, "vocabulary_size": 300}


def test_schedule_rotates_and_is_fair():
    turns = list(schedule(["a", "b", "c"], (1, 16), 4))
    assert len(turns) == 5 * 2 * 3
    assert [turn.target for turn in turns if turn.round == 2 and turn.concurrency == 16] == ["c", "a", "b"]
    assert set(Counter((turn.target, turn.concurrency) for turn in turns).values()) == {5}
    assert [turn.round for turn in turns] == sorted(turn.round for turn in turns)


def test_measures_a_difference_and_pairs_it(streaming):
    slow, fast = streaming(step_seconds=0.01), streaming(step_seconds=0.001)
    targets = {
        "slow": Target(url=slow.url, key="k", model="m", pids=(os.getpid(),)),
        "fast": Target(url=fast.url + "/v1/", key="k", model="m"),
    }
    seen = []
    found = measure(
        targets, concurrencies=(1, 3), rounds=9, requests={1: 2, 3: 6}, on_event=seen.append, **SIZES
    )
    ratio = speedup(found["fast"], found["slow"], 3)
    assert 1 < ratio.low <= ratio.value <= ratio.high
    assert len(found["slow"].rates(1)) == 9
    one, three = found["slow"].loads
    assert (one.concurrency, three.concurrency) == (1, 3)
    assert three.tokens_per_second.value > 1.5 * one.tokens_per_second.value
    assert 0.005 <= one.tpot_p50 <= one.tpot_p95
    assert found["slow"].memory_bytes > 2**20
    assert found["fast"].memory_bytes == 0
    assert len(seen) == 10 * 2 * 2
    assert seen[-1].fraction == 1
    # The warm-up round is sent but not counted, and no prompt is ever sent twice.
    prompts = [tuple(body["prompt"]) for _, _, body in slow.requests + fast.requests]
    assert len(prompts) == len(set(prompts)) == 2 * 10 * (2 + 6)
    speed = found["slow"].speed(load_seconds=1.5, weights_bytes=10)
    assert speed.loads == found["slow"].loads


def test_same_seed_same_prompts(streaming):
    first, second = streaming(step_seconds=0), streaming(step_seconds=0)
    for service in (first, second):
        target = {"t": Target(url=service.url, key="k", model="m")}
        measure(target, concurrencies=(1,), rounds=2, seed=5, **SIZES)
    assert [body for _, _, body in first.requests] == [body for _, _, body in second.requests]


def test_faults_are_said(streaming):
    service = streaming(status=401, body={"error": {"message": "no such key."}})
    target = Target(url=service.url, key="k", model="m")
    with pytest.raises(EngineError, match="no such key"):
        measure({"t": target}, concurrencies=(1,), rounds=2, **SIZES)
    with pytest.raises(UsageError, match="two rounds"):
        measure({"t": target}, rounds=1, **SIZES)
    with pytest.raises(UsageError, match="too few for a claim"):
        load.noise(target, rounds=8, **SIZES)
    with pytest.raises(UsageError, match="no TLS"):
        measure({"t": Target(url="https://example.org", key="k", model="m")}, rounds=2, **SIZES)


def test_against_itself_there_is_no_difference(streaming):
    service = streaming(step_seconds=0.002)
    target = Target(url=service.url, key="k", model="m")
    gate = load.noise(target, concurrencies=(2,), rounds=9, **SIZES)[2]
    assert gate.rounds == 9
    assert gate.ratio.low <= 1 <= gate.ratio.high


def _alive(pid):
    return Path(f"/proc/{pid}").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_the_load_process_ends_with_its_parent():
    with Generator() as generator:
        pid = generator.pid
        assert _alive(pid)
    assert not _alive(pid)
