import json

import msgspec
import numpy as np
import pytest
import torch
from families_under_test import FAMILY_NAMES, build, logits_of

from trimtab.compression.pipeline import PruneReport, prune, removal_order
from trimtab.compression.shapes import Shape
from trimtab.compression.variants import blank
from trimtab.models.families import FAMILIES
from trimtab.models.info import inspect
from trimtab.spec.errors import DataError, UsageError

SHAPE = Shape(layers=(0, 1, 3), ffn=32, kv_heads=1)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_result_loads_with_stock_transformers(name, save_model, windows, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = save_model(build(name))
    shape = msgspec.structs.replace(SHAPE, kv_heads=4 if name == "gpt2" else 1)
    report = prune(source, shape, windows, tmp_path / "small")
    model, found = AutoModelForCausalLM.from_pretrained(tmp_path / "small", output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in model.parameters()) == report.parameters < report.source_parameters
    assert logits_of(model, windows[:2]).shape == (2, windows.shape[1], 96)
    assert AutoTokenizer.from_pretrained(tmp_path / "small").eos_token == "<|endoftext|>"
    assert (tmp_path / "small" / "LICENSE").read_text() == "do as you like"


def test_the_report_says_what_was_done(save_model, windows, tmp_path):
    report = prune(save_model(build("llama")), SHAPE, windows, tmp_path / "small")
    assert report.shape == SHAPE
    assert report.calibration_tokens == 35 * windows.shape[1]
    assert report.steps == (
        "kept layers 0, 1, 3 of 4",
        "cut the FFN from 64 to 32 neurons by elimination",
        "cut KV heads from 2 to 1 by elimination",
        "refitted output matrices by least squares on 840 tokens",
    )
    assert report.warnings == ()
    assert report.seconds > 0
    assert all(half.after < half.before for half in report.halves)
    assert msgspec.json.decode(msgspec.json.encode(report), type=PruneReport) == report


def test_perplexity_is_that_of_the_saved_model_on_windows_held_out(save_model, windows, tmp_path):
    from transformers import AutoModelForCausalLM

    source = save_model(build("llama"))
    report = prune(source, SHAPE, windows, tmp_path / "small")
    held_out = windows[np.linspace(0, 39, 5).astype(int)]
    for folder, wanted in ((source, report.source_perplexity), (tmp_path / "small", report.perplexity)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        logits = logits_of(model, held_out)[:, :-1].flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(held_out[:, 1:]).flatten())
        assert wanted == pytest.approx(float(loss.exp()), rel=1e-4)


def test_pruning_to_the_whole_shape_gives_the_same_model(save_model, windows, tmp_path):
    from transformers import AutoModelForCausalLM

    source = save_model(build("qwen3"))
    shape = Shape(layers=(0, 1, 2, 3), ffn=64, kv_heads=2)
    report = prune(source, shape, windows, tmp_path / "same")
    assert report.steps == ()
    assert report.halves == ()
    assert report.perplexity == report.source_perplexity
    ours, theirs = (AutoModelForCausalLM.from_pretrained(f) for f in (source, tmp_path / "same"))
    assert torch.equal(logits_of(ours, windows[:3]), logits_of(theirs, windows[:3]))


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_tied_by_the_config_and_untied_in_the_file_stays_two_weights(name, save_model, windows, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    source = save_model(build(name, tie_word_embeddings=True))
    held = load_file(source / "model.safetensors")
    head = held[FAMILIES[name].embedding].flip(0).contiguous()
    save_file(held | {"lm_head.weight": head}, source / "model.safetensors", {"format": "pt"})
    report = prune(
        source, msgspec.structs.replace(SHAPE, kv_heads=inspect(source).kv_heads), windows, tmp_path / "small"
    )
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert torch.equal(stock.lm_head.weight, head)
    assert torch.equal(stock.get_input_embeddings().weight, held[FAMILIES[name].embedding])
    assert stock.config.tie_word_embeddings is False
    assert report.parameters == sum(weight.numel() for weight in stock.parameters())
    # A model of that shape with random weights, by which speed is measured, has two as well.
    assert inspect(blank(source, report.shape, tmp_path / "blank")).parameters == report.parameters


def test_the_precision_of_the_source_is_kept(save_model, windows, tmp_path):
    source = save_model(build("llama").to(torch.bfloat16))
    prune(source, SHAPE, windows, tmp_path / "small")
    assert json.loads((tmp_path / "small" / "config.json").read_text())["dtype"] == "bfloat16"


def test_few_calibration_tokens_are_said_to_be_few(save_model, windows, tmp_path):
    report = prune(save_model(build("llama")), SHAPE, windows[:6], tmp_path / "small")
    assert any("120 calibration tokens are few" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w[:1], "two windows"),
        (lambda w: w[0], "two windows"),
        (lambda w: w + 50, "outside of the vocabulary"),
        (lambda w: np.tile(w, (1, 4)), "longer than the model's context"),
    ],
    ids=["one", "flat", "foreign", "long"],
)
def test_windows_that_do_not_fit_are_refused_and_nothing_is_written(
    change, message, save_model, windows, tmp_path
):
    source = save_model(build("llama"))
    with pytest.raises(DataError, match=message):
        prune(source, SHAPE, change(windows), tmp_path / "small")
    assert not (tmp_path / "small").exists()


def test_a_shape_that_cannot_be_is_refused_before_anything_is_loaded(save_model, windows, tmp_path):
    source = save_model(build("llama"))
    (source / "model.safetensors").rename(source / "model-hidden")
    (source / "model-hidden").rename(source / "model.safetensors")
    with pytest.raises(UsageError, match="cannot be cut to 40"):
        prune(source, msgspec.structs.replace(SHAPE, ffn=40), windows, tmp_path / "small")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_layers_are_ordered_and_threads_given_back(save_model, windows):
    source = save_model(build("llama"))
    before = torch.get_num_threads()
    order = removal_order(source, windows, threads=2)
    assert sorted(order) == [0, 1, 2, 3]
    assert order == removal_order(source, windows, how="perplexity")
    assert torch.get_num_threads() == before


def test_progress_ends_at_one(save_model, windows, tmp_path):
    seen: list[float] = []
    prune(save_model(build("llama")), SHAPE, windows, tmp_path / "small", on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
