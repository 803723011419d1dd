import pytest
import torch
from families_under_test import (
    FAMILY_NAMES,
    blocks_of,
    build,
    cuts_of,
    family_of,
    info_of,
    logits_of,
    shape_of,
)

from trimtab.compression.pruning.decoder import cut
from trimtab.spec.errors import ModelError

WITH_HEADS = [name for name in FAMILY_NAMES if name != "gpt2"]


def _cut(model, shape, windows, **settings):
    cuts = cuts_of(model, shape, windows, **settings)
    return cut(model, family_of(model), info_of(model), shape, cuts)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_removing_nothing_changes_no_bit(name, windows):
    model = build(name)
    same = _cut(model, shape_of(model), windows)
    assert torch.equal(logits_of(same, windows[:4]), logits_of(model, windows[:4]))


@pytest.mark.parametrize("name", FAMILY_NAMES)
@pytest.mark.parametrize("refitting", [True, False])
def test_removing_neurons_that_do_nothing_changes_nothing(name, refitting, windows):
    model = build(name)
    blocks = blocks_of(model, windows.shape[1])
    with torch.no_grad():
        for layer in range(4):
            blocks.output_matrix(layer, "ffn")[torch.randperm(64)[:32]] = 0
    smaller = _cut(model, shape_of(model, ffn=32), windows, refitting=refitting)
    assert getattr(smaller.config, family_of(model).keys.ffn) == 32
    torch.testing.assert_close(
        logits_of(smaller, windows[:4]), logits_of(model, windows[:4]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", WITH_HEADS)
@pytest.mark.parametrize("idle", [0, 1])
def test_removing_a_head_group_that_does_nothing_changes_nothing(name, idle, windows):
    model = build(name)
    blocks = blocks_of(model, windows.shape[1])
    with torch.no_grad():
        for layer in range(4):
            matrix = blocks.output_matrix(layer, "attention")
            matrix.view(2, -1, 32)[idle] = 0
    smaller = _cut(model, shape_of(model, kv_heads=1), windows)
    config = smaller.config
    assert (config.num_key_value_heads, config.num_attention_heads) == (1, 2)
    assert config.head_dim == info_of(model).head_dim
    torch.testing.assert_close(
        logits_of(smaller, windows[:4]), logits_of(model, windows[:4]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_removing_layers_that_do_nothing_changes_nothing(name, windows):
    model = build(name)
    blocks = blocks_of(model, windows.shape[1])
    with torch.no_grad():
        for layer in (1, 2):
            for half in ("attention", "ffn"):
                blocks.output_matrix(layer, half).zero_()
                if (bias := blocks.output_bias(layer, half)) is not None:
                    bias.zero_()
    smaller = _cut(model, shape_of(model, layers=(0, 3)), windows)
    torch.testing.assert_close(
        logits_of(smaller, windows[:4]), logits_of(model, windows[:4]), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_the_cut_model_generates_with_its_cache(name, windows):
    model = build(name)
    heads = {"kv_heads": 1} if name != "gpt2" else {}
    smaller = _cut(model, shape_of(model, layers=(0, 2), ffn=32, **heads), windows)
    prompt = torch.as_tensor(windows[:1, :8])
    written = smaller.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    for place in range(8, written.shape[1]):
        assert logits_of(smaller, written[:, :place])[0, -1].argmax() == written[0, place]


def test_the_source_model_is_not_touched(windows):
    model = build("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = model.config.to_dict()
    _cut(model, shape_of(model, layers=(0, 2), ffn=32, kv_heads=1), windows)
    assert model.config.to_dict() == settings
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_each_kept_layer_keeps_its_kind_of_attention(windows):
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = build("qwen2", use_sliding_window=True, sliding_window=6, layer_types=kinds, max_window_layers=2)
    smaller = _cut(model, shape_of(model, layers=(1, 2)), windows, refitting=False)
    assert smaller.config.layer_types == ["sliding_attention", "full_attention"]
    assert smaller.config.max_window_layers == 1
    blocks = blocks_of(model, windows.shape[1])
    hidden = blocks.embed(torch.as_tensor(windows[:3]))
    for layer in (1, 2):
        hidden = blocks.run(layer, hidden)
    wanted = blocks.nll(hidden, torch.as_tensor(windows[:3]))
    logits = logits_of(smaller, windows[:3])[:, :-1].flatten(0, 1)
    found = torch.nn.functional.cross_entropy(
        logits, torch.as_tensor(windows[:3, 1:]).flatten(), reduction="sum"
    )
    assert float(found) == pytest.approx(wanted, rel=1e-5)


def test_layers_that_know_their_number_cannot_be_removed(windows):
    model = build("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(ModelError, match="layer's number"):
        cut(model, family_of(model), info_of(model), shape_of(model, layers=(0, 2)), [])


def test_what_removed_neurons_always_add_goes_into_the_bias(windows):
    model = build("gpt2")
    with torch.no_grad():
        for block in model.transformer.h:
            constant = torch.randperm(64)[:32]
            block.mlp.c_fc.weight[:, constant] = 0
            block.mlp.c_fc.bias[constant] = 1.5
    shape = shape_of(model, ffn=32)
    difference = {
        refitting: logits_of(_cut(model, shape, windows, refitting=refitting), windows[:4])
        .sub(logits_of(model, windows[:4]))
        .abs()
        .mean()
        for refitting in (True, False)
    }
    assert difference[True] < 0.1 * difference[False]
