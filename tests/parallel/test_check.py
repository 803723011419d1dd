"""The real modules, built without memory, against the formulas: every family that we train."""

import pytest
import torch
import transformers
from msgspec.structs import replace

from trimtab.models.families import FAMILIES
from trimtab.parallel.check import check
from trimtab.planning.devices.accelerators import accelerator, machine_of
from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.job import Job
from trimtab.spec.layout import parse_layout

_LLAMA = Architecture(
    family="llama",
    layers=4,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=96,
    vocabulary=301,
    tied=False,
)
_GPT = replace(_LLAMA, family="gpt", kv_heads=4, ffn=256, tied=True, positions=32, attention_bias=True)
_SHAPES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": replace(_LLAMA, attention_bias=True, tied=True),
    "qwen3": replace(_LLAMA, query_key_norm=True, head_dim=32),
    "gpt2": _GPT,
}


def _job(shape, devices=8):
    return Job(
        architecture=shape,
        machine=machine_of(accelerator("h100-80gb", where="test"), name="h100-80gb"),
        devices=devices,
        sequence_length=32,
        global_batch=64,
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_formulas_count_what_stock_modules_have(name):
    shape = _SHAPES[name]
    makers = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
    }
    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=shape.vocabulary, n_embd=64, n_layer=4, n_head=4, n_positions=shape.positions
        )
    else:
        config = makers[name](
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=shape.ffn,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            tie_word_embeddings=shape.tied,
        )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == shape.parameters


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "layout",
    [
        "data=8",
        "data=4,zero=1,tensor=2",
        "shard=8,reshard=on",
        "data=2,tensor=2,pipeline=2",
        "shard=2,tensor=2,pipeline=2",
        "pipeline=4,data=2",
        "context=2,shard=2,tensor=2",
    ],
)
def test_every_rank_holds_what_was_predicted(name, layout):
    found = check(_job(_SHAPES[name]), parse_layout(layout))
    assert found.parameters == found.predicted_parameters
    for rank in found.ranks:
        assert rank.parameters == rank.predicted_parameters
    assert found.agrees, found.sentence


def test_a_wrong_prediction_is_found():
    """The check must be able to fail: planning is told of a table that the model does not have."""

    class Lying(Architecture, frozen=True):
        @property
        def layer_matrices(self):
            return super().layer_matrices + 64 * 96

    shape = Lying(**{name: getattr(_LLAMA, name) for name in _LLAMA.__struct_fields__})
    found = check(_job(shape), parse_layout("data=8"))
    assert not found.agrees
    assert found.predicted_parameters == found.parameters + 4 * 64 * 96


def test_a_world_larger_than_any_laptop():
    job = replace(_job(replace(_LLAMA, layers=14), devices=16384), global_batch=16384)
    found = check(job, parse_layout("data=1024,tensor=2,pipeline=8"))
    assert [rank.stage for rank in found.ranks] == [0, 1, 7]
    assert [rank.rank for rank in found.ranks] == [0, 2048, 7 * 2048]
    assert found.agrees, found.sentence
    assert not torch.distributed.is_initialized()
