"""`trimtab.plan_training` from Python: plain values in, one record out, and what our own training does not run."""

import json

import pytest

import trimtab
from trimtab.spec.errors import ModelError, UsageError
from trimtab.spec.layout import Layout

GPT2 = {"accelerator": "a100-80gb", "sequence_length": 1024, "global_batch": 64}
LLAMA = {"accelerator": "h100-80gb", "sequence_length": 8192, "global_batch": 64, "devices": 8}


def test_gpt2_under_tensor_is_priced_and_marked():
    plan = trimtab.plan_training("gpt2", devices=4, top=10_000, **GPT2)
    cut = [found for found in plan.layouts if found.layout.tensor > 1]
    shared = [found for found in plan.layouts if found.layout.zero == 2 and found.layout.tensor == 1]
    assert cut
    assert shared
    assert all("one matrix" in found.not_trained for found in cut if not found.layout.zero)
    assert all("planned for, not run" in found.not_trained for found in shared)
    runs = [found for found in plan.layouts if found.not_trained is None]
    assert runs
    assert plan.trained == runs[0]


def test_a_layout_that_training_refuses_is_scored_and_says_so():
    plan = trimtab.plan_training("gpt2", layout="tensor=4", **GPT2)
    assert plan.feasible
    assert "keeps queries, keys and values in one matrix" in plan.layouts[0].not_trained
    assert plan.trained is None
    plan = trimtab.plan_training("llama3-8b", layout="tensor=8,sequence=on,micro_batch=1", **LLAMA)
    assert plan.layouts[0].not_trained is None
    assert plan.trained == plan.layouts[0]


def test_an_alternative_that_training_refuses_is_not_recommended_without_a_word():
    plan = trimtab.plan_training("llama3-8b", layout=Layout(data=4, zero=2), **LLAMA)
    assert not plan.feasible
    assert (plan.alternative.not_trained is None) == ("does not run it" not in plan.remedy)
    gpt = {"family": "gpt", "layers": 8, "hidden": 8192, "heads": 64, "vocab": 50257}
    plan = trimtab.plan_training(arch=gpt, layout="tensor=8,data=2", devices=8, **GPT2)
    assert plan.alternative.not_trained
    assert "`trimtab train` does not run it" in plan.remedy


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_optimizers_that_training_has_not_for_a_layout(optimizer):
    plan = trimtab.plan_training("llama3-8b", layout="shard=8,reshard=on", optimizer=optimizer, **LLAMA)
    assert plan.layouts[0].not_trained


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_encoders_and_image_models_are_not_planned_for(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ModelError, match=kind):
        trimtab.plan_training(tmp_path, devices=2, **GPT2)


def _config(folder, **changes):
    values = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 512,
        "max_position_embeddings": 512,
    }
    (folder / "config.json").write_text(json.dumps(values | changes))
    return folder


def test_sequences_beyond_learned_positions_are_refused_and_beyond_rotary_ones_warned_of(tmp_path):
    gpt = _config(tmp_path, model_type="gpt2", n_embd=64, n_layer=4, n_head=4, n_positions=512)
    with pytest.raises(UsageError, match="positions for 512"):
        trimtab.plan_training(gpt, devices=1, **GPT2)
    with pytest.raises(UsageError, match="positions for 1,024"):
        trimtab.plan_training("gpt2", devices=1, **GPT2 | {"sequence_length": 2048})
    plan = trimtab.plan_training(_config(tmp_path), devices=1, **GPT2)
    assert "made for 512" in plan.warnings[0]
    assert not trimtab.plan_training(tmp_path, devices=1, **GPT2 | {"sequence_length": 512}).warnings


def test_values_with_units_or_as_numbers_are_the_same():
    words = trimtab.plan_training("llama3-8b", link="450GB", network="50GB/s", tokens="1T", price=2, **LLAMA)
    numbers = trimtab.plan_training("llama3-8b", link=450e9, network=50e9, tokens=1e12, price=2, **LLAMA)
    assert words == numbers
    assert words.layouts[0].cost == pytest.approx(words.layouts[0].hours * 8 * 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": None}, "how many devices"),
        ({"precision": "fp8"}, "--precision: 'fp8' is unknown"),
        ({"optimizer": "adam"}, "--optimizer"),
        ({"layout": Layout(data=8, zero=3)}, "shard=N"),
        ({"network": -1.0}, "--network"),
        ({"tokens": float("nan")}, "--tokens"),
        ({"top": 0}, "--top"),
        ({"arch": {"family": "gpt"}}, "name one model"),
    ],
)
def test_wrong_use_is_a_usage_error(changes, words):
    with pytest.raises(UsageError, match=words):
        trimtab.plan_training("llama3-8b", **LLAMA | changes)


def test_it_says_nothing(capsys):
    trimtab.plan_training("llama3-8b", **LLAMA)
    assert capsys.readouterr() == ("", "")
