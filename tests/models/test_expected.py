"""A config is held against the tensors in the files, before anything of the size it claims is built."""

import json
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtab.models.families import FAMILIES
from trimtab.models.info import inspect, stored_dtype
from trimtab.models.load import load
from trimtab.models.tasks import check_model
from trimtab.spec.errors import ModelError

HUGE = 10**9


def change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reweigh(folder, make):
    """Writes what `make` returns for the weights that are there."""
    path = folder / "model.safetensors"
    save_file(make(load_file(path)), path, metadata={"format": "pt"})


def base(name):
    return FAMILIES[name].base + "."


@pytest.mark.parametrize("name", list(FAMILIES))
def test_sizes_that_the_files_do_not_hold_are_refused_at_no_cost(make_model, name):
    folder, keys = make_model(name), FAMILIES[name].keys
    before = json.loads((folder / "config.json").read_text())
    for key in (keys.layers, keys.hidden, keys.heads, keys.kv_heads, keys.head_dim, keys.ffn, "vocab_size"):
        if key is None:
            continue
        (folder / "config.json").write_text(json.dumps({**before, key: HUGE}))
        tracemalloc.start()
        with pytest.raises(ModelError) as caught:
            inspect(folder)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
        tracemalloc.stop()
        assert "config.json" in str(caught.value)
    (folder / "config.json").write_text(json.dumps(before))
    assert inspect(folder).layers == 2


@pytest.mark.parametrize("key", [1, 3])
def test_fewer_or_more_layers_than_the_files_hold_are_refused(make_model, key):
    folder = make_model("llama")
    change(folder, num_hidden_layers=key)
    with pytest.raises(ModelError, match=f"num_hidden_layers is {key}, and the weights hold 2 layers"):
        inspect(folder)


def test_another_vocabulary_is_told_with_both_shapes(make_model):
    folder = make_model("llama")
    change(folder, vocab_size=301)
    with pytest.raises(
        ModelError, match=r"embed_tokens\.weight is 300 × 32 in the weights, and config\.json makes it 301"
    ):
        inspect(folder)


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("bias", [False, True])
def test_all_that_a_stock_model_saves_is_expected(make_model, name, bias):
    changes = {"attention_bias": bias} if name in ("llama", "qwen3") else {}
    folder = make_model(name, **changes | ({"mlp_bias": bias} if name == "llama" else {}))
    assert inspect(folder).parameters == sum(weight.numel() for weight in load(folder).parameters())


@pytest.mark.parametrize("name", list(FAMILIES))
def test_names_without_the_prefix_of_the_body_are_read_as_stock_does(make_model, name):
    folder = make_model(name)
    before = inspect(folder)
    reweigh(folder, lambda w: {key.removeprefix(base(name)): value for key, value in w.items()})
    assert inspect(folder) == before
    assert torch.equal(
        load(folder).get_input_embeddings().weight[0], load(folder).get_input_embeddings().weight[0]
    )


def constants(name, dtype=torch.float32):
    start = f"{FAMILIES[name].layer(0)}.{FAMILIES[name].attention}"
    return {
        f"{start}.rotary_emb.inv_freq": torch.ones(4, dtype=dtype),
        f"{start}.bias": torch.ones(1, 1, 64, 64, dtype=torch.uint8),
        f"{start}.masked_bias": torch.tensor(-1e4),
        f"{base(name)}position_ids": torch.arange(64),
    }


@pytest.mark.parametrize("name", list(FAMILIES))
def test_masks_and_tables_are_no_parameters_and_do_not_decide_the_stored_type(make_model, name):
    """Old checkpoints hold them in float32 beside float16 weights; stock ignores them too."""
    folder = make_model(name, dtype="float16")
    before, weights = inspect(folder), load(folder, "stored").state_dict()
    reweigh(folder, lambda w: w | constants(name))
    assert (inspect(folder), stored_dtype(folder)) == (before, "float16")
    loaded = load(folder, "stored")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float16}
    assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("rename", "says"),
    [
        (lambda key: f"_orig_mod.{key}", "compiled"),
        (lambda key: f"module.{key}", "distributed"),
        (lambda key: f"base_model.model.{key}", "merge"),
    ],
)
def test_names_under_a_wrapper_are_told_as_such(make_model, rename, says):
    folder = make_model("llama")
    reweigh(folder, lambda w: {rename(key): value for key, value in w.items()})
    with pytest.raises(ModelError, match=says):
        inspect(folder)


def test_anything_else_unexpected_is_named(make_model):
    folder = make_model("llama")
    reweigh(folder, lambda w: w | {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.zeros(8, 32)})
    with pytest.raises(
        ModelError, match=r"hold model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight, for which"
    ):
        inspect(folder)


def test_a_matrix_of_integers_is_called_quantized(make_model):
    folder = make_model("llama")
    key = "model.layers.0.mlp.up_proj.weight"
    reweigh(folder, lambda w: w | {key: w[key].to(torch.int8)})
    with pytest.raises(ModelError, match=r"quantized already: .*up_proj\.weight is stored as I8"):
        inspect(folder)


def test_a_head_that_is_not_there_is_named_with_what_to_write(make_model):
    folder = make_model("llama")
    change(folder, tie_word_embeddings=False)
    with pytest.raises(ModelError, match=r"lack lm_head\.weight.* Write tie_word_embeddings: true"):
        inspect(folder)


def test_a_tied_head_counts_once_whichever_name_it_is_stored_under(make_model):
    folder = make_model("llama")
    before = inspect(folder)
    reweigh(folder, lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    assert inspect(folder) == before
    reweigh(folder, lambda w: {key: value for key, value in w.items() if key != "model.embed_tokens.weight"})
    assert inspect(folder) == before


def test_classes_without_number_are_refused(make_model):
    """transformers makes a name for each of `num_labels`, also for a decoder."""
    folder = make_model("llama")
    change(folder, num_labels=HUGE)
    with pytest.raises(ModelError, match="num_labels is 1000000000"):
        inspect(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": HUGE},
        {"vocab_size": HUGE},
        {"hidden_size": 10**6},
        {"intermediate_size": HUGE},
        {"max_position_embeddings": HUGE},
        {"num_labels": HUGE},
        {"num_hidden_layers": -1},
        {"hidden_size": "64"},
        {"type_vocab_size": True},
    ],
)
def test_an_encoders_sizes_are_held_against_its_files(tmp_path, changes):
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=64, max_position_embeddings=32, **sizes)).save_pretrained(tmp_path)
    check_model(tmp_path, "fill-mask")
    change(tmp_path, **changes)
    with pytest.raises(ModelError, match=next(iter(changes))):
        check_model(tmp_path, "fill-mask")


@pytest.mark.parametrize("changes", [{"depths": [1, HUGE]}, {"hidden_sizes": [8, HUGE]}, {"num_channels": 0}])
def test_an_image_models_sizes_are_held_against_its_files(tmp_path, changes):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(tmp_path)
    check_model(tmp_path, "image-classification")
    change(tmp_path, **changes)
    with pytest.raises(ModelError, match=next(iter(changes))):
        check_model(tmp_path, "image-classification")
