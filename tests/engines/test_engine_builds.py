"""Builds: made once, apart, byte for byte the same; refused in a sentence; nothing said when all is well."""

import json
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from tiny_models import CONTEXT, VOCABULARY, make_artifact
from transformers import AutoModelForCausalLM

from trimtab.engines.builder import Builder
from trimtab.engines.builds import build_key, ensure_build, ensure_builds, weights_bytes
from trimtab.engines.openvino.weights import bf16_bits
from trimtab.engines.record import read_record
from trimtab.engines.scorers import scorer
from trimtab.engines.scoring import log_softmax
from trimtab.models.info import inspect
from trimtab.models.load import load
from trimtab.spec.errors import EngineError, ModelError
from trimtab.spec.ids import digest
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.builds import MANIFEST

FORMATS = ("float32", "bf16", "int8", "int4")


def files_of(build):
    return {path.name: path.read_bytes() for path in build.iterdir() if path.name != MANIFEST}


@pytest.fixture(scope="module")
def bare_home(tmp_path_factory):
    """The home of the user under whom `builder` runs."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def builder(bare_home):
    """A build process apart from the one of `build_of`."""
    with pytest.MonkeyPatch.context() as patch, Builder() as builder:
        patch.setenv("HOME", str(bare_home))
        yield builder


@pytest.fixture(scope="module")
def again(artifacts, tmp_path_factory, builder):
    """Builds made a second time, in another process and another order than those of `build_of`."""
    folder, made = tmp_path_factory.mktemp("again"), {}
    for weight_format in reversed(FORMATS):
        made[weight_format] = folder / weight_format
        builder.make(artifacts("mistral"), weight_format, made[weight_format])
    return made


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_repeated_build_is_byte_identical(weight_format, build_of, again):
    first, second = files_of(build_of("mistral", weight_format)), files_of(again[weight_format])
    assert first == second
    assert {"build.json", "config.json", "openvino_model.xml", "openvino_model.bin"} <= first.keys()


@pytest.mark.parametrize(
    ("weight_format", "least", "most"), [("bf16", 0.5, 0.51), ("int8", 0.25, 0.29), ("int4", 0.12, 0.24)]
)
def test_weights_take_the_bytes_their_format_promises(weight_format, least, most, build_of):
    """int4 keeps embedding and head in int8, which is much of so small a model."""
    ratio = weights_bytes(build_of("mistral", weight_format)) / weights_bytes(build_of("mistral"))
    assert least < ratio < most


@pytest.mark.parametrize(
    ("weight_format", "most"), [("float32", 1e-4), ("bf16", 0.02), ("int8", 0.02), ("int4", 0.5)]
)
def test_scorers_agree_with_transformers_as_far_as_weights_allow(
    weight_format, most, artifacts, build_of, build_home
):
    """Mean token KL (nats) from transformers float32 on the full logits of a batch."""
    build_of("mistral", weight_format)
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (3, 50))
    reference = scorer(
        artifacts("mistral"), ServingConfiguration(engine="transformers", weight_format="float32"), build_home
    )
    served = scorer(artifacts("mistral"), ServingConfiguration(weight_format=weight_format), build_home)
    theirs, ours = log_softmax(reference.logits(tokens)), log_softmax(served.logits(tokens))
    assert ours.shape == (3, 50, VOCABULARY)
    assert ours.dtype == np.float32
    divergence = (np.exp(theirs) * (theirs - ours)).sum(axis=-1)
    # Not below nothing, but for the rounding of float32.
    assert -1e-6 < divergence.mean() < most


def test_scores_do_not_depend_on_the_piece_or_the_batch(artifacts, build_of, build_home, monkeypatch):
    build_of("llama")
    served = scorer(artifacts("llama"), ServingConfiguration(weight_format="float32"), build_home)
    tokens = np.random.default_rng(1).integers(0, VOCABULARY, (4, 40))
    whole = served.logits(tokens)
    np.testing.assert_allclose(served.logits(tokens[1:2]), whole[1:2], atol=1e-4)
    monkeypatch.setattr("trimtab.engines.openvino.scorer.piece_rows", lambda *_: 7)
    np.testing.assert_allclose(served.logits(tokens), whole, atol=1e-4)


def test_bf16_rounds_as_torch_does():
    values = np.random.default_rng(0).normal(0, 1, 10_000).astype(np.float32)
    values[:4] = [0.0, -0.0, 1.00390625, 1.01171875]  # the last two lie half-way between neighbours
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(bf16_bits(values), expected)


def test_the_record_says_what_was_built(artifacts, build_of):
    record = read_record(build_of("qwen2", "float32"))
    assert (record.engine, record.weight_format) == ("openvino", "float32")
    assert (record.model.context, record.model.vocabulary, record.model.eos_ids) == (
        CONTEXT,
        VOCABULARY,
        (1, 2),
    )
    assert set(record.versions) == {"exporter", "openvino", "nncf", "torch", "transformers"}


def test_a_folder_that_is_no_build_is_named(tmp_path):
    with pytest.raises(EngineError, match=r"build\.json"):
        read_record(tmp_path)


def test_a_build_that_is_there_is_not_made_again(artifacts, build_of, build_home):
    build = build_of("llama")
    began = time.monotonic()
    assert (
        ensure_build(artifacts("llama"), ServingConfiguration(weight_format="float32"), build_home) == build
    )
    assert time.monotonic() - began < 0.5


def test_the_key_covers_what_decides_the_bytes_and_nothing_else(artifacts):
    keys = [
        digest(build_key(artifacts(family), ServingConfiguration(weight_format=weight_format)))
        for family in ("llama", "gpt2")
        for weight_format in FORMATS
    ]
    assert len(set(keys)) == len(keys)
    served_otherwise = ServingConfiguration(
        weight_format="float32", threads=2, kv_precision="float32", max_batch=1
    )
    assert digest(build_key(artifacts("llama"), served_otherwise)) == keys[0]


def test_engines_without_builds_run_the_artifact_itself(artifacts, tmp_path):
    serving = ServingConfiguration(engine="transformers", weight_format="float32")
    assert ensure_build(artifacts("llama"), serving, tmp_path) == artifacts("llama")
    assert weights_bytes(artifacts("llama")) > 100_000
    with pytest.raises(EngineError, match="int8"):
        ensure_build(
            artifacts("llama"), ServingConfiguration(engine="transformers", weight_format="int8"), tmp_path
        )


def test_what_cannot_be_served_right_is_refused_in_a_sentence(tmp_path, builder):
    """And a refusal does not end the process that makes the next build."""
    refused = {
        "window": ({"sliding_window": 32}, "attends to 32 tokens of a context of 128"),
        "rope": ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
        "eos": ({"eos_token_id": 512_000}, "end token 512000"),
    }
    for name, (change, said) in refused.items():
        artifact = make_artifact(tmp_path / name, "mistral", **change)
        with pytest.raises(ModelError, match=said):
            builder.make(artifact, "float32", tmp_path / "out" / name)
    wide = make_artifact(tmp_path / "wide", "mistral", sliding_window=CONTEXT)
    builder.make(wide, "float32", tmp_path / "out" / "wide")
    assert read_record(tmp_path / "out" / "wide").model.context == CONTEXT


def test_a_refused_artifact_leaves_nothing_in_the_cache(artifacts, tmp_path):
    torn = shutil.copytree(artifacts("gpt2"), tmp_path / "torn")
    (torn / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        ensure_builds([(torn, ServingConfiguration())], tmp_path / "home")
    assert not (tmp_path / "home").exists() or not list((tmp_path / "home").rglob("*.bin"))


def test_a_build_process_that_dies_is_told_with_its_last_words(artifacts, tmp_path, monkeypatch):
    code = "import sys; print('out of memory, say', file=sys.stderr); sys.exit(9)"
    monkeypatch.setattr("trimtab.spec.processes.command", lambda *_: [sys.executable, "-c", code])
    with pytest.raises(EngineError, match="out of memory, say"), Builder() as builder:
        builder.make(artifacts("llama"), "float32", tmp_path / "out")


@pytest.mark.filterwarnings("ignore")  # tracing warns, and here it runs in the test's own process
def test_an_export_that_says_something_else_is_refused(artifacts):
    """The proof stands between a wrong graph and a user: here one weight differs."""
    from trimtab.engines.openvino.export import export
    from trimtab.engines.openvino.proof import prove

    info = inspect(artifacts("gpt2"))
    exported = export(load(artifacts("gpt2")), info)
    other = load(artifacts("gpt2"))
    assert prove(exported, other, info) < 1e-4
    with torch.no_grad():
        other.transformer.h[1].mlp.c_proj.weight[3, 5] += 1.0
    with pytest.raises(EngineError, match="differs from transformers"):
        prove(exported, other, info)


def test_telemetry_is_off_and_the_home_stays_clean(
    again, bare_home, build_of, artifacts, start_worker, monkeypatch
):
    """Nothing is left in the user's home by builds or workers, and nothing is printed."""
    monkeypatch.setenv("HOME", str(bare_home))
    build_of("gpt2")
    gateway = start_worker(artifacts("gpt2"), engine="openvino", weight_format="float32")
    gateway.hello()
    assert list(bare_home.iterdir()) == []
    assert gateway.words() == ""


def test_stock_transformers_still_loads_what_was_built_from(artifacts, build_of):
    """A build takes nothing from its artifact and adds nothing to it."""
    build_of("gpt2")
    assert sorted(path.name for path in artifacts("gpt2").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert AutoModelForCausalLM.from_pretrained(artifacts("gpt2")).config.n_layer == 2
    assert json.loads((build_of("gpt2") / "config.json").read_text())["model_type"] == "gpt2"
