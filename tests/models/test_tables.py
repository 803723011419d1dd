"""Ids and positions beyond a model's tables: a named refusal, or a warning where stock computes all the same."""

import json

import pytest
import transformers

from trimtab.models.tables import check_ids, check_length, tables_of
from trimtab.spec.errors import ModelError

CONFIGS = {
    "gpt2": transformers.GPT2Config,
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "mistral": transformers.MistralConfig,
    "bert": transformers.BertConfig,
    "distilbert": transformers.DistilBertConfig,
    "roberta": transformers.RobertaConfig,
}


@pytest.fixture
def folder(tmp_path):
    def make(kind, **values):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **values}))
        return tmp_path

    return make


def test_sequences_beyond_learned_positions_are_refused(folder):
    for kind, key, most in (
        ("gpt2", "n_positions", 64),
        ("bert", "max_position_embeddings", 64),
        ("distilbert", "max_position_embeddings", 64),
        # Positions begin after the id of padding.
        ("roberta", "max_position_embeddings", 62),
    ):
        made = folder(kind, **{key: 64})
        assert check_length(made, most, where="training.sequence_length") is None
        with pytest.raises(ModelError, match=f"has positions for {most} tokens") as caught:
            check_length(made, most + 1, where="training.sequence_length")
        assert "training.sequence_length" in str(caught.value)
        assert str(most) in caught.value.remedy


@pytest.mark.parametrize("padding", [None, 0, 1, 5])
def test_robertas_positions_as_its_module_counts_them(folder, padding):
    places = {} if padding is None else {"pad_token_id": padding}
    made = folder("roberta", max_position_embeddings=20, **places)
    assert tables_of(made).places == 20 - (1 if padding is None else padding) - 1


def test_sequences_beyond_a_rotary_context_are_warned_of(folder):
    for kind in ("llama", "qwen2", "mistral", "qwen3"):
        made = folder(kind, max_position_embeddings=64)
        assert check_length(made, 64, where="training.sequence_length") is None
        warning = check_length(made, 65, where="training.sequence_length")
        assert "training.sequence_length is 65" in warning
        assert "context is 64" in warning


@pytest.mark.parametrize("kind", CONFIGS)
def test_absent_keys_are_stocks(folder, kind):
    stock = CONFIGS[kind]()
    table = tables_of(folder(kind))
    assert table.rows == stock.vocab_size
    offset = stock.pad_token_id + 1 if kind == "roberta" else 0
    assert (table.places or table.context) == stock.max_position_embeddings - offset


def test_the_other_name_of_a_key_is_read_as_stock_reads_it(folder):
    made = folder("gpt2", max_position_embeddings=64)
    assert tables_of(made).places == transformers.AutoConfig.from_pretrained(made).n_positions == 64


def test_ids_beyond_the_embedding_are_refused_by_name(folder):
    made = folder("llama", vocab_size=512)
    check_ids(made, {"a": 0, "z": 511})
    with pytest.raises(ModelError, match=r"token '<pad>' with id 512, and 1 more, .* has 512 rows") as caught:
        check_ids(made, {"a": 0, "<eos>": 513, "<pad>": 512})
    assert caught.value.where == str(made)
    assert "resize_token_embeddings" in caught.value.remedy
