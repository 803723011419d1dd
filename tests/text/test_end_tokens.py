"""Where a text ends: the union of what three files say, the class's default, and what is no id."""

import json

import pytest
import tokenizer_folders as made

from trimtab.spec.errors import ModelError
from trimtab.text.end_tokens import CLASS_DEFAULTS, eos_ids_of
from trimtab.text.tokenizer import Tokenizer

FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def write(folder, **files):
    for stem, value in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(value))
    return folder


def test_nothing_said_is_none(tmp_path):
    assert eos_ids_of(tmp_path) == ()


def test_one_or_a_list_of_either_file(tmp_path):
    write(tmp_path, config={"eos_token_id": 3, "x": 1})
    assert eos_ids_of(tmp_path) == (3,)
    write(tmp_path, generation_config={"eos_token_id": [4, 5]})
    assert eos_ids_of(tmp_path) == (4, 5, 3)
    write(tmp_path, config={"eos_token_id": [5, 0]})
    assert eos_ids_of(tmp_path) == (4, 5, 0)


@pytest.mark.parametrize("where", ["tokenizer_config", "special_tokens_map"])
@pytest.mark.parametrize("end", ["<|im_end|>", "<|eot_id|>"])
def test_a_turns_end_that_only_the_tokenizer_names(tmp_path, where, end):
    rust = made.byte_level("<|endoftext|>", end)
    named = {"eos_token": end} if where == "special_tokens_map" else {**FAST, "eos_token": end}
    files = {"tokenizer_config": FAST, where: named, "generation_config": {"eos_token_id": 0}}
    made.write(tmp_path, rust, config={"model_type": "llama", "eos_token_id": 0, "vocab_size": 340}, **files)
    assert eos_ids_of(tmp_path) == Tokenizer.load(tmp_path).eos_ids == (0, 1)


def test_a_turns_end_in_no_vocabulary_ends_nothing(tmp_path):
    rust = made.byte_level()
    rows = rust.get_vocab_size()
    config = {"model_type": "llama", "eos_token_id": 0, "vocab_size": rows}
    made.write(tmp_path, rust, {**FAST, "eos_token": "<|im_end|>"}, config=config)
    assert eos_ids_of(tmp_path) == (0,)
    made.write(tmp_path, rust, {**FAST, "eos_token": "<|im_end|>"}, config={**config, "vocab_size": rows + 1})
    assert eos_ids_of(tmp_path) == (0, rows)


def test_a_class_that_counts_its_added_tokens_anew(tmp_path):
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "added_tokens_decoder": {"900": made.record("<|im_end|>")},
    }
    made.write(tmp_path, made.byte_level(), settings, config={"model_type": "qwen2"})
    assert eos_ids_of(tmp_path) == (made.byte_level().get_vocab_size(),)


@pytest.mark.parametrize(("model", "default"), CLASS_DEFAULTS.items())
def test_absent_means_the_class_default_and_null_means_none(tmp_path, model, default):
    write(tmp_path, config={"model_type": model})
    assert eos_ids_of(tmp_path) == (default,)
    write(tmp_path, config={"model_type": model, "eos_token_id": None})
    assert eos_ids_of(tmp_path) == ()
    write(tmp_path, config={"model_type": model, "vocab_size": default})
    assert eos_ids_of(tmp_path) == ()


def test_the_class_default_yields_to_what_is_said(tmp_path):
    write(tmp_path, config={"model_type": "llama"}, generation_config={"eos_token_id": 9})
    assert eos_ids_of(tmp_path) == (9,)
    write(tmp_path, generation_config={"eos_token_id": None})
    assert eos_ids_of(tmp_path) == (2,)


def test_the_defaults_are_those_of_transformers():
    from transformers import AutoConfig

    from trimtab.models.families import ENCODERS, FAMILIES

    stock = {model: AutoConfig.for_model(model).eos_token_id for model in (*FAMILIES, *ENCODERS)}
    assert {model: end for model, end in stock.items() if end is not None} == CLASS_DEFAULTS


@pytest.mark.parametrize("name", ["config", "generation_config"])
@pytest.mark.parametrize("value", [True, 2.0, -1, "2", [1, -1], [2.5], ["</s>"], {"id": 2}, 2**31, [[2]]])
def test_what_is_no_id_is_refused_with_its_file(tmp_path, name, value):
    write(tmp_path, **{name: {"eos_token_id": value}})
    with pytest.raises(ModelError, match="eos_token_id") as caught:
        eos_ids_of(tmp_path)
    assert str(caught.value.where).endswith(f"/{name}.json")
