"""A tokenizer with more tokens than its model has rows: told when the model is started."""

import json

import pytest
import tokenizer_folders as made

from trimtab.spec.errors import ModelError
from trimtab.text.rows import check_rows
from trimtab.text.tokenizer import Tokenizer

FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def check(folder, rust, rows, template="", settings=FAST):
    made.write(folder, rust, settings, config={"model_type": "llama", "vocab_size": rows})
    return check_rows(Tokenizer.load(folder), template, folder)


def test_as_many_or_more_rows_are_right(tmp_path):
    size = made.byte_level().get_vocab_size()
    assert check(tmp_path, made.byte_level(), size) == []
    assert check(tmp_path, made.byte_level(), size + 28) == []


def test_ordinary_tokens_without_rows_are_refused(tmp_path):
    size = made.byte_level().get_vocab_size()
    with pytest.raises(ModelError, match=rf"\({size - 1}\).*ends at {size - 2}") as caught:
        check(tmp_path, made.byte_level(), size - 1)
    assert "resize_token_embeddings" in caught.value.remedy
    with pytest.raises(ModelError, match=r"and 5 more"):
        check(tmp_path, made.byte_level(), size - 10)


def test_a_token_that_the_template_or_the_tokenizer_needs_is_refused(tmp_path):
    rust = made.byte_level()
    size = rust.get_vocab_size()
    rust.add_special_tokens(["<|new|>"])
    with pytest.raises(ModelError, match=r"<\|new\|>"):
        check(tmp_path, rust, size, "{{ messages }}<|new|>")
    from tokenizers import processors

    rust.post_processor = processors.TemplateProcessing(
        single="<|new|> $A", pair="$A $B", special_tokens=[("<|new|>", size)]
    )
    with pytest.raises(ModelError, match=r"<\|new\|>"):
        check(tmp_path, rust, size)


def test_a_token_that_nothing_needs_is_a_warning(tmp_path):
    size = made.byte_level().get_vocab_size()
    (warning,) = check(tmp_path, made.byte_level(), size, settings={**FAST, "pad_token": "[PAD]"})
    assert f"'[PAD]' ({size})" in warning


def test_a_config_without_rows_says_nothing(tmp_path):
    made.write(tmp_path, made.byte_level(), FAST)
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": None}))
    assert check_rows(Tokenizer.load(tmp_path), "", tmp_path) == []
