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
from trimtab.compression.pruning.sequential import features_of


def _divergence(model, shape, windows, **settings):
    """Mean KL(model ‖ cut model) per token on windows that were not used to fit."""
    cuts = cuts_of(model, shape, windows[:32], **settings)
    smaller = cut(model, family_of(model), info_of(model), shape, cuts)
    ours, theirs = (torch.log_softmax(logits_of(m, windows[32:]), dim=-1) for m in (model, smaller))
    return float((ours.exp() * (ours - theirs)).sum(dim=-1).mean())


@pytest.mark.parametrize("name", FAMILY_NAMES)
@pytest.mark.parametrize("change", [{"ffn": 32}, {"layers": (0, 1, 3)}], ids=str)
def test_the_refit_brings_the_model_closer_on_text_it_never_saw(name, change, windows):
    model = build(name)
    shape = shape_of(model, **change)
    with_refit = _divergence(model, shape, windows)
    without = _divergence(model, shape, windows, refitting=False)
    assert with_refit < 0.9 * without


def test_what_was_measured_chooses_better_than_chance(windows):
    model = build("llama")
    blocks = blocks_of(model, windows.shape[1])
    with torch.no_grad():  # half of the neurons hardly matter, but which?
        for layer in range(4):
            blocks.output_matrix(layer, "ffn")[torch.randperm(64)[:32]] *= 0.05
    shape = shape_of(model, ffn=32)
    kl = {
        how: _divergence(model, shape, windows, how=how) for how in ("elimination", "contribution", "random")
    }
    assert kl["elimination"] < 0.2 * kl["random"]
    assert kl["contribution"] < 0.2 * kl["random"]


def test_errors_are_told_per_half_and_fall_with_the_refit(windows):
    model = build("gpt2")
    cuts = cuts_of(model, shape_of(model, ffn=32), windows)
    assert [(c.layer, c.half) for c in cuts][:2] == [(0, "ffn"), (1, "attention")]
    assert len(cuts) == 7  # the first attention sees no change, so it stays as it is
    assert all(c.after < c.before for c in cuts)
    plain = cuts_of(model, shape_of(model, ffn=32), windows, refitting=False)
    assert all(c.after == c.before for c in plain)


def test_layers_before_the_first_change_stay_bit_for_bit(windows):
    model = build("llama")
    shape = shape_of(model, layers=(0, 1, 3))
    smaller = cut(model, family_of(model), info_of(model), shape, cuts_of(model, shape, windows))
    for layer in (0, 1):
        ours, theirs = (m.model.layers[layer].state_dict() for m in (model, smaller))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(
        smaller.model.layers[2].mlp.down_proj.weight, model.model.layers[3].mlp.down_proj.weight
    )


def test_features_that_do_not_fit_memory_are_run_again_with_the_same_result(windows, monkeypatch):
    model = build("qwen3")
    shape = shape_of(model, ffn=32, kv_heads=1)
    kept = cuts_of(model, shape, windows)
    monkeypatch.setattr("trimtab.compression.pruning.sequential._REMEMBERED_BYTES", 0)
    for one, other in zip(kept, cuts_of(model, shape, windows), strict=True):
        assert torch.equal(one.matrix, other.matrix)


def test_batches_change_nothing_but_rounding(windows, monkeypatch):
    model = build("llama")
    shape = shape_of(model, ffn=32)
    whole = cuts_of(model, shape, windows)
    monkeypatch.setattr("trimtab.compression.pruning.blocks.BATCH_TOKENS", 7 * windows.shape[1])
    for one, other in zip(whole, cuts_of(model, shape, windows), strict=True):
        assert torch.equal(one.units, other.units)
        torch.testing.assert_close(one.matrix, other.matrix, rtol=1e-2, atol=1e-3)


def test_a_unit_owns_its_features():
    assert features_of(torch.tensor([0, 2]), 3).tolist() == [0, 1, 2, 6, 7, 8]
