import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from test_plan_serve import trimtab

from trimtab.spec.engine_profile import CompressionProfile, EngineProfile, ShapeProfile, Wave
from trimtab.spec.hardware import this_machine
from trimtab.spec.serving import ServingConfiguration

_MODEL = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128,
    tie_word_embeddings=True)).save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    subprocess.run([sys.executable, "-c", _MODEL, str(folder)], check=True, capture_output=True)
    return str(folder)


def shape(layers=4, ffn=64, kv_heads=2, weight_format="bf16", factor=1.0):
    size = factor * (1 + layers * (0.25 + 0.5 * ffn / 64 + 0.25 * kv_heads / 2))

    def wave(running, prompt):
        ttft = 0.003 + 1e-5 * size * prompt
        return Wave(
            running=running,
            prompt_tokens=prompt,
            output_tokens=32,
            ttft=ttft,
            tpot=1e-3 * size * (1 + 0.1 * running),
        )

    profile = EngineProfile(
        hardware=this_machine(),
        created="2026-11-25T00:00:00Z",
        trimtab_version="0",
        model="planted",
        name="small",
        serving=ServingConfiguration(weight_format=weight_format),
        waves=(wave(1, 16), wave(4, 16), wave(16, 16), wave(1, 64)),
        rounds=5,
        memory_bytes=round(1e8 * size),
        context_length=128,
        weights_bytes=round(1e6 * size),
        parameters=round(1e6 * size / factor),
        layers=layers,
    )
    return ShapeProfile(layers=layers, ffn=ffn, kv_heads=kv_heads, profile=profile)


@pytest.fixture
def profile(tmp_path):
    shapes = (
        shape(),
        shape(weight_format="int8", factor=0.6),
        shape(layers=2),
        shape(ffn=32),
        shape(kv_heads=1),
    )
    path = tmp_path / "compression.json"
    path.write_bytes(msgspec.json.encode(CompressionProfile(model="planted", name="small", shapes=shapes)))
    return str(path)


def test_options_as_json_and_as_a_table(model, profile, tmp_path):
    flags = ["plan", "compress", model, "--profile", profile, "--speedup", "2", "--concurrency", "8"]
    done = trimtab(*flags, "--json", home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["feasible"]
    best = found["options"][0]
    assert best["reason"] is None
    assert best["speedup"] >= 2
    assert best["weights_bytes"] < found["baseline"]["weights_bytes"]
    shown = trimtab(*flags, "--steps", "depth,int8,unstructured", home=tmp_path / "home")
    assert shown.returncode == 0
    assert "holds every limit" in shown.stdout
    assert "refused: unstructured on openvino: no speed-up" in shown.stderr


def test_what_cannot_be_had_leaves_with_3_and_the_nearest(model, profile, tmp_path):
    flags = ["plan", "compress", model, "--profile", profile]
    done = trimtab(*flags, "--speedup", "90", home=tmp_path / "home")
    assert done.returncode == 3
    nearest = done.stderr[done.stderr.index("--speedup") :].split(" can be had")[0].split()
    assert trimtab(*flags, *nearest, home=tmp_path / "home").returncode == 0


def test_steps_that_gain_nothing_are_refused_with_their_evidence(model, tmp_path):
    done = trimtab(
        "plan",
        "compress",
        model,
        "--steps",
        "unstructured",
        "--engine",
        "onnxruntime",
        "--json",
        home=tmp_path,
    )
    assert done.returncode == 3
    assert json.loads(done.stdout)["refused"][0]["source"] == "neuralmagic/sparseml#1529"
    assert "no speed-up" in done.stderr
    assert "--steps depth,width,kv_groups" in done.stderr


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--steps", "dept"], 2, "Did you mean 'depth'"),
        (["--engine", "openvin"], 2, "Did you mean 'openvino'"),
        (["--engine", "vllm"], 3, "--engine openvino"),
        (["--speedup", "0"], 2, "--speedup"),
        (["--rate", "1", "--concurrency", "2"], 2, "one of the two"),
        (["--prompt-tokens", "500"], 2, "exceed the context of 128"),
        ([], 0, ""),
    ],
)
def test_bad_input(model, profile, tmp_path, flags, code, words):
    done = trimtab("plan", "compress", model, "--profile", profile, *flags, home=tmp_path / "home")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_never_measured_says_how(model, tmp_path):
    done = trimtab("plan", "compress", model, home=tmp_path / "home")
    assert done.returncode == 2
    assert "--measure" in done.stderr
    done = trimtab("plan", "compress", "mock", home=tmp_path / "home")
    assert done.returncode == 2
    assert "nothing to compress" in done.stderr


@pytest.mark.slow
def test_shapes_and_formats_are_measured_on_the_engine(model, tmp_path):
    pytest.importorskip("openvino_genai")
    home = tmp_path / "home"
    done = trimtab("plan", "compress", model, "--measure", "--json", home=home, timeout=600)
    assert done.returncode == 0, done.stderr
    kept = list((home / "profiles").glob("compression-*.json"))
    assert len(kept) == 1
    assert not list(home.glob("trimtab-shapes-*"))
    found = json.loads(done.stdout)
    cuts = [option for option in found["options"] if option["removed"] > 0.2]
    assert all(option["weights_bytes"] < found["baseline"]["weights_bytes"] for option in cuts)
    assert Path(model, "config.json").is_file()
