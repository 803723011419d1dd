"""`trimtab train` as a person runs it: real processes, a real terminal signal, a stock load of what it saved."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from machine_profiles import machine_profile
from trimtab.spec.profile import GemmSample, load_profile, save_profile
from trimtab.store.profiles import machine_profile_path

RECIPE = """
version: 1
name: tiny
model: {architecture: llama, layers: 1, hidden: 32, heads: 2, ffn: 48, vocabulary: 320, context: 64}
data: {train: {jsonl: text.jsonl, text: t}}
training: {tokens: TOKENS, sequence_length: 16, batch: 4}
"""


@pytest.fixture
def start(tmp_path):
    """`start("--json", tokens=640)` → the running command."""
    rows = [json.dumps({"t": f"the {n} cats sat on {n * 7} mats near {n % 13} dogs"}) for n in range(300)]
    (tmp_path / "text.jsonl").write_text("\n".join(rows))

    def run(*arguments, tokens, spread=("--processes", "2")):
        recipe = tmp_path / f"recipe-{tokens}.yaml"
        recipe.write_text(RECIPE.replace("TOKENS", str(tokens)))
        return subprocess.Popen(
            [sys.executable, "-m", "trimtab", "train", str(recipe), *spread, *arguments],
            env=os.environ | {"TRIMTAB_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def end(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_trains_saves_and_is_done_the_second_time(start, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    code, out, err = end(start("--json", tokens=64 * 30))
    assert code == 0, err
    answer = json.loads(out)
    assert answer["training"]["tokens"] == 64 * 30
    model = AutoModelForCausalLM.from_pretrained(answer["model"])
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(answer["model"]))
    assert answer["model"].startswith(str(tmp_path / "home" / "runs" / "tiny-"))
    code, again, _ = end(start("--json", tokens=64 * 30))
    assert code == 0
    assert json.loads(again) == answer


def test_a_layout_and_a_folder_of_the_command_line(start, tmp_path):
    """Sharded, though the recipe says nothing of it: optimizer: auto is then AdamW."""
    there = ("--fresh", "--output", str(tmp_path / "there"))
    code, out, err = end(start("--json", *there, tokens=64 * 6, spread=("--layout", "shard=2,reshard=on")))
    assert code == 0, err
    answer = json.loads(out)
    assert answer["model"] == str(tmp_path / "there" / "models" / "baseline")
    assert (answer["training"]["tokens"], answer["training"]["optimizer"]) == (64 * 6, "adamw")


def test_ctrl_c_saves_and_leaves_no_process(start, tmp_path):
    log = tmp_path / "figures.jsonl"
    running = start("--log", str(log), tokens=64 * 100_000)
    deadline = time.monotonic() + 90
    while not _steps(log) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert _steps(log)
    ranks = [
        child
        for child in psutil.Process(running.pid).children(recursive=True)
        if "trimtab.parallel.launching.rank" in child.cmdline()
    ]
    assert len(ranks) == 2
    running.send_signal(signal.SIGINT)
    code, _, err = end(running)
    assert code == 130
    assert "Traceback" not in err
    assert not any(rank.is_running() for rank in ranks)
    (saved,) = (tmp_path / "home").rglob("step-*")
    assert int(saved.name.removeprefix("step-")) > 0


def _steps(log):
    return log.read_text().count("\n") if log.exists() else 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("training: {tokens: 1k, batch: 1, sequence_length: 16}", "cannot be shared by 2 processes"),
        ("training: {tokens: 1k, sequence_length: 4096}", "less than one sequence of 4096"),
    ],
)
def test_bad_settings_are_a_sentence_and_code_2(start, tmp_path, line, says):
    running = start("--help", tokens=1)
    end(running)
    recipe = tmp_path / "recipe-1.yaml"
    text = recipe.read_text().splitlines()
    recipe.write_text("\n".join([*text[:-1], line]))
    done = subprocess.run(
        [sys.executable, "-m", "trimtab", "train", str(recipe), "--processes", "2"],
        env=os.environ | {"TRIMTAB_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_layouts_are_refused(start):
    code, _, err = end(start("--layout", "shard=2", tokens=64, spread=("--processes", "2")))
    assert code == 2
    assert "--processes N is short for" in err
    code, _, err = end(start(tokens=64, spread=("--layout", "shards=2")))
    assert code == 2
    assert "Did you mean 'shard'" in err


@pytest.mark.slow
def test_a_calibrated_machine_chooses_by_trial_and_keeps_what_was_predicted(start, tmp_path):
    """Without `--processes` the recipe's layout is `auto`."""
    profile = machine_profile(gemm=(GemmSample(dtype="float32", m=100, n=100, k=100, seconds=1e-4),))
    path = machine_profile_path(tmp_path / "home")
    save_profile(profile, path)
    code, out, err = end(start("--json", tokens=64 * 30, spread=()))
    assert code == 0, err
    assert "finding out took" in err
    (run,) = (tmp_path / "home" / "runs").iterdir()
    choice = json.loads((run / "results" / "layout.json").read_text())
    tried: dict[int, list[dict]] = {}
    for trial in choice["trials"]:
        tried.setdefault(trial["layout"]["data"], []).append(trial)
    assert set(tried) == {1, 2}
    # The two that there are, each twice.
    means = {data: sum(t["step_seconds"] for t in trials) / 2 for data, trials in tried.items()}
    assert choice["layout"]["data"] == min(means, key=means.get)
    # One process has a prediction of its own only where one process was measured.
    assert tried[1][0]["predicted_seconds"] is None
    assert tried[2][0]["predicted_seconds"] > 0
    kept = load_profile(path).comparisons
    assert {(row.layout, row.quantity) for row in kept} >= {
        ("data=2,micro_batch=2", "step_seconds"),
        ("data=2,micro_batch=2", "peak_memory_bytes"),
    }
    code, again, err = end(start("--json", tokens=64 * 30, spread=()))
    assert (code, again) == (0, out)
    assert load_profile(path).comparisons == kept
