"""Tied by the config, untied in the files, and every other pair of the two: as stock transformers loads them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtab.models.create import create_like
from trimtab.models.families import FAMILIES
from trimtab.models.info import inspect, read_shape
from trimtab.models.load import load, save
from trimtab.models.tying import is_tied
from trimtab.spec.errors import ModelError
from trimtab.training.watching.utilization import flops_per_token

TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}


def edit(folder, config=None, weights=lambda held: held):
    """Change a saved folder's config and tensors."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    save_file(
        weights(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def split(folder, last):
    """Two files and an index, with the tensor `last` in the second."""
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {key: f"model-0000{1 + (key == last)}-of-00002.safetensors" for key in held}
    for place in set(places.values()):
        save_file({key: held[key] for key in held if places[key] == place}, folder / place, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def with_head(name, head):
    """Add a head beside the embedding: `head` makes it of the embedding."""
    known = FAMILIES[name]
    return lambda held: held | {known.head: head(held[known.embedding])}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(20)[None]).logits


def as_stock(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    return model, model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize(
    ("head", "two"), [(lambda embedding: embedding + 1, True), (lambda embedding: embedding.clone(), False)]
)
@pytest.mark.parametrize("shards", [1, 2])
def test_tied_by_the_config_and_a_head_in_the_files(make_model, name, head, two, shards):
    flops = flops_per_token(load(make_model(name, **TIED)), 8)
    folder = edit(make_model(name, **TIED), weights=with_head(name, head))
    if shards == 2:
        split(folder, FAMILIES[name].head)
    stock, tied = as_stock(folder)
    info, shape, model = inspect(folder), read_shape(folder / "config.json"), load(folder)
    assert tied is info.tied is shape.tied is is_tied(model) is model.config.tie_word_embeddings is not two
    assert info.parameters == sum(weight.numel() for weight in stock.parameters())
    assert torch.equal(logits(model), logits(stock))
    # An embedding that is only looked up multiplies nothing.
    assert flops_per_token(model, 8) == flops > 0


@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_is_saved_says_what_it_holds(make_model, tmp_path, name):
    folder = edit(make_model(name, **TIED), weights=with_head(name, lambda embedding: embedding + 1))
    model, _ = as_stock(folder)
    saved = save(model, tmp_path / "saved", folder)
    assert json.loads((saved / "config.json").read_text())["tie_word_embeddings"] is False
    again, tied = as_stock(saved)
    assert not tied
    assert torch.equal(logits(again), logits(model))
    # And one that shares a weight though its config says that there are two.
    model.lm_head.weight = model.get_input_embeddings().weight
    again, tied = as_stock(save(model, tmp_path / "shared", folder))
    assert tied
    assert torch.equal(logits(again), logits(model))


def test_an_untrained_model_of_the_same_shape_has_as_many_weights(make_model, tmp_path):
    folder = edit(make_model("llama", **TIED), weights=with_head("llama", lambda embedding: embedding + 1))
    fresh = create_like(folder, tmp_path / "fresh", 0)
    assert inspect(fresh).parameters == inspect(folder).parameters
    assert not inspect(fresh).tied


def test_a_tied_model_that_holds_the_head_alone(make_model):
    folder = edit(
        make_model("llama", **TIED),
        weights=lambda held: {
            (FAMILIES["llama"].head if name == FAMILIES["llama"].embedding else name): tensor
            for name, tensor in held.items()
        },
    )
    stock, tied = as_stock(folder)
    info = inspect(folder)
    assert tied is info.tied is is_tied(load(folder)) is True
    assert info.parameters == sum(weight.numel() for weight in stock.parameters())


@pytest.mark.parametrize("name", list(FAMILIES))
def test_untied_by_the_config_and_no_head_in_the_files(make_model, name):
    folder = edit(make_model(name, **TIED), config=UNTIED)
    with pytest.raises(ModelError, match=r"lack lm_head.weight.*Write tie_word_embeddings: true") as caught:
        inspect(folder)
    assert "config.json" in str(caught.value)
    with pytest.raises(ModelError, match=r"lack lm_head.weight"):
        load(folder)


def test_gpt2_as_hubs_have_it_without_the_prefix_of_the_body(make_model):
    folder = edit(
        make_model("gpt2", **TIED),
        weights=lambda held: {name.removeprefix("transformer."): tensor for name, tensor in held.items()},
    )
    assert inspect(folder).tied is as_stock(folder)[1] is True
    edit(folder, weights=lambda held: held | {"lm_head.weight": held["wte.weight"] + 1})
    assert inspect(folder).tied is as_stock(folder)[1] is False


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM"])
def test_a_masked_model_with_a_head_of_its_own_reloads_equal(tmp_path, kind):
    """One word in its config ties the head and its bias: where only the head is untied, the bias must stay tied."""
    import transformers

    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
    sizes |= {"num_attention_heads": 2, "max_position_embeddings": 40, "pad_token_id": 0}
    if kind.startswith("Distil"):
        sizes = {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
    maker = getattr(transformers, kind)
    torch.manual_seed(0)
    model = maker(maker.config_class(**sizes)).eval()
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach() + 1)
    model.save_pretrained(tmp_path / "untied")
    loaded = load(tmp_path / "untied", task="fill-mask")
    assert not is_tied(loaded)
    again = maker.from_pretrained(save(loaded, tmp_path / "saved", tmp_path / "untied")).eval()
    assert torch.equal(logits(again), logits(model))
