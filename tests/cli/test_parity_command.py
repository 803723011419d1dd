"""`trimtab parity` as a person runs it."""

import json
import os
import subprocess
import sys


def parity(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "trimtab", "parity", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_prints_cases_and_leaves_with_one_if_any_differs_or_is_refused():
    done = parity("--steps", "2", "--json", "data=2", "pipeline=2", "tensor=2,micro_batch=3")
    assert done.returncode == 0, done.stderr
    cases = json.loads(done.stdout)["cases"]
    assert [case["layout"] for case in cases] == ["data=2", "pipeline=2", "tensor=2,micro_batch=3"]
    for case in cases:
        assert case["equal"]
        assert case["max_abs_loss_difference"] <= 1e-12
    assert done.stderr.count(": equal, losses differ by") == 3
    refused = parity("--steps", "1", "--json", "data=1", "pipeline=2,micro_batch=8")
    assert refused.returncode == 1
    answer = json.loads(refused.stdout)["cases"]
    assert answer[0]["equal"]
    assert "make no whole number of micro-batches" in answer[1]["refused"]


def test_wrong_use():
    done = parity("data=2", "--dtype", "float16")
    assert done.returncode == 2
    assert "float16 is not compared" in done.stderr
    done = parity("datum=2")
    assert done.returncode == 2
    assert "Did you mean 'data'" in done.stderr
