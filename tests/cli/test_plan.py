"""`trimtab plan train` as a person and a script meet it: documents, sentences, exit codes, no torch."""

import json
import resource
import subprocess
import sys

import pytest

from trimtab.spec.hardware import this_machine
from trimtab.spec.profile import Comparison, GemmSample, Profile, save_profile

GPT = '{"family":"gpt","layers":80,"hidden":12288,"heads":96,"vocab":51200}'
PUBLISHED = [
    "--arch",
    GPT,
    "--accelerator=a100-80gb",
    "--devices=1536",
    "--per-node=8",
    "--sequence-length=2048",
    "--global-batch=2304",
    "--layout=data=24,tensor=8,pipeline=8,virtual=2,micro_batch=2,recompute=full,schedule=interleaved",
]
LLAMA = ["llama3-8b", "--accelerator=h100-80gb", "--sequence-length=8192", "--global-batch=64"]


@pytest.fixture
def plan(tmp_path):
    def run(*arguments):
        environment = {"TRIMTAB_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, "-m", "trimtab", "plan", "train", *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )

    return run


def test_a_published_layout_is_scored(plan):
    done = plan(*PUBLISHED, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["layouts"]
    assert found["feasible"] is True
    assert found["reason"] is None
    assert found["layout"]["virtual"] == 2
    assert found["step_seconds"] == pytest.approx(24.82, rel=0.06)
    assert found["tflops_per_device"] == pytest.approx(148, rel=0.06)
    assert 0.3 < found["mfu"] < 0.5
    assert found["memory_bytes"]["total"] < 80 * 2**30
    assert found["tokens_per_second"] == pytest.approx(2304 * 2048 / found["step_seconds"])


def test_the_whole_grid_of_1024_devices(plan):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = plan(
        "llama3-70b",
        "--accelerator=h100-80gb",
        "--devices=1024",
        "--sequence-length=8192",
        "--global-batch=1024",
        "--tokens=1T",
        "--price=2",
        "--json",
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    steps = [layout["step_seconds"] for layout in found["layouts"]]
    assert steps == sorted(steps)
    assert len(steps) == 10
    assert found["considered"] > 1000
    assert all("needs" in refused["reason"] for refused in found["rejected"])
    best = found["layouts"][0]
    assert best["cost"] == pytest.approx(best["hours"] * 1024 * 2)
    # Processor time of the whole command: wall time on a busy machine says nothing.
    assert after.ru_utime - before.ru_utime < 2


def test_tables_and_reasons_for_people(plan):
    done = plan(*LLAMA, "--devices=8", "--explain", "--top=3")
    assert done.returncode == 0, done.stderr
    assert "8.03 B parameters on 8" in done.stdout
    assert "optimizer" in done.stdout
    assert done.stderr.count("needs") > 5


def test_what_our_own_training_does_not_run_is_marked_with_its_reason(plan):
    asked = ["gpt2-xl", "--accelerator=a100-80gb", "--sequence-length=1024", "--global-batch=64"]
    done = plan(*asked, "--devices=8", "--top=1000")
    assert done.returncode == 0, done.stderr
    marked = [line for line in done.stdout.splitlines() if "zero=2" in line]
    assert marked
    assert all(" * " in line for line in marked)
    assert "*: `trimtab train` does not run it: zero=2 is planned for, not run." in done.stderr
    done = plan(*asked, "--layout=tensor=5")
    assert done.returncode == 0, done.stderr
    assert "`trimtab train` does not run this layout: the layers of gpt2 cannot be split" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([*LLAMA, "--devices=0"], 2, "--devices: 0 devices"),
        ([*LLAMA], 2, "--devices: how many"),
        (["llama3-9b", *LLAMA[1:], "--devices=8"], 2, "Did you mean 'llama3-8b'"),
        (["llama3-8b", "--accelerator=h100-80g", *LLAMA[2:], "--devices=8"], 2, "Did you mean 'h100-80gb'"),
        (["llama3-8b", "--accelerator=tpu", *LLAMA[2:], "--devices=8"], 2, "Known: v100-16gb"),
        (["llama3-8b", *LLAMA[2:], "--devices=8"], 2, "this machine was not measured"),
        ([*LLAMA, "--devices=8", "--per-node=0"], 2, "--per-node"),
        ([*LLAMA, "--devices=8", "--network=fast"], 2, "--network"),
        ([*LLAMA, "--devices=8", "--layout=tensr=8"], 2, "Did you mean 'tensor'"),
        ([*LLAMA, "--devices=8", "--layout=data=8,zero=3"], 2, "shard=N"),
        ([*LLAMA, "--devices=8", "--price=2"], 2, "--tokens"),
        ([*LLAMA, "--devices=8", "--arch", GPT], 2, "name one model"),
        (["--arch", "{", *LLAMA[1:], "--devices=8"], 2, "not JSON"),
        (["--arch", GPT.replace("96", "7"), *LLAMA[1:], "--devices=8"], 2, "7 heads do not divide"),
        (["no/such-model", *LLAMA[1:], "--devices=8"], 2, "Give the path of its config.json"),
        (["missing.json", *LLAMA[1:], "--devices=8"], 2, "missing.json"),
        ([*LLAMA, "--devices=16", "--layout=tensor=16"], 3, "do not divide over tensor=16.*--layout"),
        ([*LLAMA, "--devices=8", "--layout=data=8"], 3, "needs .* GiB.*feasible: --layout"),
        ([*LLAMA, "--devices=8", "--layout=data=4"], 3, "for 4 devices, not 8"),
        (["llama3-405b", *LLAMA[1:], "--devices=8"], 3, "no layout fits.*feasible: --devices 128"),
        ([*LLAMA[:-1], "--global-batch=1", "--devices=7"], 3, "no layout divides"),
    ],
)
def test_bad_input_is_a_sentence_and_a_code(plan, arguments, code, words):
    import re

    done = plan(*arguments)
    assert done.returncode == code, done.stderr
    assert re.search(words, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_not_feasible_is_in_the_document_too(plan):
    done = plan(*LLAMA, "--devices=8", "--layout=data=8,micro_batch=1", "--json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    (refused,) = found["layouts"]
    assert refused["feasible"] is False
    assert "needs" in refused["reason"]
    assert refused["step_seconds"] > 0
    assert found["alternative"]["feasible"] is True


def test_a_config_of_a_folder(plan, tmp_path):
    config = {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in (tmp_path, tmp_path / "config.json"):
        done = plan(str(name), *LLAMA[1:], "--devices=8", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"]["parameters"] == 494_032_768


def test_planning_brings_no_torch():
    code = (
        "import sys\n"
        "import trimtab.cli.plan_train, trimtab.cli.plan_table, trimtab.parallel.plan\n"
        "import trimtab.planning.training.advisor, trimtab.planning.training.fitting\n"
        "import trimtab.planning.devices.profiles\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_real_model_agrees(plan):
    done = plan(*LLAMA, "--devices=8", "--layout=shard=8,reshard=on", "--check", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["check"]
    assert found["agrees"] is True
    assert found["parameters"] == 8_030_261_248


def test_a_measured_machine_comes_with_the_planners_own_error(plan, tmp_path):
    gemm = GemmSample(dtype="float32", m=1000, n=1000, k=1000, seconds=0.1)
    runs = [Comparison(layout="data=1", quantity="step_seconds", predicted=1.1, measured=1.0)] * 2
    profile = Profile(
        name="here",
        hardware=this_machine(),
        measured_at="2026-11-25",
        per_node=1,
        memory_bytes=2**36,
        memory_bytes_per_second=8e9,
        gemm=(gemm,),
        comparisons=tuple(runs),
    )
    save_profile(profile, tmp_path / "profile.json")
    model = '{"family":"llama","layers":2,"hidden":256,"heads":4,"ffn":768,"vocab":2048}'
    asked = ["--arch", model, "--devices=1", "--sequence-length=256", "--global-batch=8"]
    (found,) = json.loads(plan(*asked, "--json").stdout)["fitness"]
    assert (found["quantity"], found["runs"]) == ("step_seconds", 2)
    assert found["mean_error"] == pytest.approx(0.1)
    assert "2 runs predicted 10.0% off on average" in plan(*asked).stderr
    # Of a datasheet nothing was ever measured.
    assert json.loads(plan(*LLAMA, "--devices=8", "--json").stdout)["fitness"] is None
