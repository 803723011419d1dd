import json
import os
import subprocess
import sys

import msgspec
import pytest

from trimtab.spec.engine_profile import EngineProfile, Wave
from trimtab.spec.hardware import this_machine
from trimtab.spec.serving import ServingConfiguration


def trimtab(*arguments, home, timeout=120):
    return subprocess.run(
        [sys.executable, "-m", "trimtab", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRIMTAB_HOME": str(home), "COLUMNS": "200"},
    )


@pytest.fixture
def profile(tmp_path):
    def wave(running, prompt):
        first = 0.003 + 2e-5 * prompt
        return Wave(
            running=running, prompt_tokens=prompt, output_tokens=48, ttft=first, tpot=0.001 + 1e-4 * running
        )

    path = tmp_path / "profile.json"
    found = EngineProfile(
        hardware=this_machine(),
        created="2026-11-25T00:00:00Z",
        trimtab_version="0",
        model="planted",
        name="planted",
        serving=ServingConfiguration(replicas=2, cores=((0,), (1,))),
        waves=(wave(1, 16), wave(4, 16), wave(16, 16), wave(1, 256)),
        rounds=9,
        memory_bytes=2**28,
        context_length=512,
        cache_token_bytes=512.0,
        cache_block_tokens=32,
    )
    path.write_bytes(msgspec.json.encode(found))
    return str(path)


def test_a_plan_as_json_and_as_a_table(profile, tmp_path):
    flags = ["plan", "serve", "any", "--profile", profile, "--rate", "40", "--price", "0.5"]
    done = trimtab(*flags, "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert plan["feasible"]
    assert plan["workers"] == 1
    assert plan["expected"]["tokens_per_second"] == pytest.approx(40 * 64, rel=0.1)
    assert plan["cost_per_million_tokens"] > 0
    # What is planned can be served: it is a serving configuration.
    assert msgspec.convert(plan["serving"], ServingConfiguration).replicas == 1
    shown = trimtab(*flags, home=tmp_path / "home")
    assert shown.returncode == 0
    for words in ("time to first token", "max_batch, max_queue", "cost of a million"):
        assert words in shown.stdout


def test_infeasible_levels_leave_with_3_and_a_level_that_holds(profile, tmp_path):
    flags = ["plan", "serve", "any", "--profile", profile, "--rate", "40"]
    done = trimtab(*flags, "--tpot-p95", "0.5ms", "--json", home=tmp_path / "home")
    assert done.returncode == 3
    assert json.loads(done.stdout)["plan"]["feasible"] is False
    assert "can be had with" in done.stderr
    nearest = done.stderr[done.stderr.index("--tpot-p95") :].split(" can be had")[0].split()
    assert trimtab(*flags, *nearest, home=tmp_path / "home").returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rate", "0"], "--rate"),
        ([], "--rate"),
        (["--rate", "5", "--concurrency", "4"], "one of the two"),
        (["--rate", "5", "--ttft-p95", "fast"], "--ttft-p95"),
        (["--rate", "5", "--ttft-p95", "0ms"], "--ttft-p95"),
        (["--rate", "5", "--memory", "2"], "--memory"),
        (["--rate", "5", "--price", "-1"], "--price"),
        (["--rate", "5", "--prompt-tokens", "0"], "--prompt-tokens"),
        (["--rate", "5", "--prompt-tokens", "600"], "at most 448 prompt tokens"),
    ],
)
def test_bad_input_is_a_sentence_and_2(profile, tmp_path, flags, words):
    done = trimtab("plan", "serve", "any", "--profile", profile, *flags, home=tmp_path / "home")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_never_measured_says_how(tmp_path):
    done = trimtab("plan", "serve", "mock", "--rate", "5", home=tmp_path / "home")
    assert done.returncode == 2
    assert "--measure" in done.stderr
    done = trimtab("plan", "serve", "./nowhere", "--rate", "5", home=tmp_path / "home")
    assert done.returncode == 2
    assert "config.json" in done.stderr


@pytest.mark.slow
def test_the_mock_engine_is_measured_and_predicted(tmp_path):
    """A measured profile of a real service, a load that it has not seen, and that load sent."""
    from trimtab.bench.client import drive
    from trimtab.bench.job import Job, address
    from trimtab.service.launch import ServedModel, start

    home = tmp_path / "home"
    flags = ["--rate", "25", "--prompt-tokens", "40", "--output-tokens", "50", "--json"]
    done = trimtab("plan", "serve", "mock", "--measure", *flags, home=home, timeout=400)
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)["plan"]["expected"]
    # It was kept, so that the next plan needs no measurement.
    assert trimtab("plan", "serve", "mock", *flags, home=home).returncode == 0
    serving = ServingConfiguration(engine="mock")
    with start([ServedModel(name="mock", serving=serving)], home=home, port=0) as service:
        job = Job(
            **address(service.url)._asdict(),
            model="mock",
            key=service.create_key("test"),
            concurrency=64,
            requests=250,
            prompt_tokens=40,
            output_tokens=50,
            vocabulary_size=256,
            seed=9,
            rate=25.0,
        )
        outcome = drive(job)
    rate = sum(outcome.tokens) / outcome.wall_seconds
    assert expected["tokens_per_second"] == pytest.approx(rate, rel=0.2)
    # The machine of a test is not quiet: only that it is the same order.
    ttft = sorted(outcome.first)[len(outcome.first) // 2]
    assert ttft / 4 < expected["ttft_p50"] < ttft * 4
