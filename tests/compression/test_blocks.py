import pytest
import torch
from families_under_test import FAMILY_NAMES, LENGTH, blocks_of, build, logits_of
from torch.nn import functional

CASES = [(name, {}) for name in FAMILY_NAMES] + [
    (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    ("mistral", {"sliding_window": 6}),
    ("gpt2", {"activation_function": "relu"}),
]


def _run(blocks, tokens):
    hidden = blocks.embed(tokens)
    for layer in range(blocks.count):
        hidden = blocks.run(layer, hidden)
    return hidden


@pytest.mark.parametrize(("name", "changes"), CASES)
def test_blocks_one_after_the_other_are_the_model(name, changes, windows):
    model = build(name, **changes)
    tokens = torch.as_tensor(windows[:6])
    blocks = blocks_of(model, LENGTH)
    wanted = functional.cross_entropy(
        logits_of(model, tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"
    )
    assert blocks.nll(_run(blocks, tokens), tokens) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("name", FAMILY_NAMES)
@pytest.mark.parametrize("half", ["attention", "ffn"])
def test_features_times_the_output_matrix_are_what_a_half_adds(name, half, windows):
    blocks = blocks_of(build(name), LENGTH)
    hidden = blocks.embed(torch.as_tensor(windows[:3]))
    added = blocks.features(1, half, hidden) @ blocks.output_matrix(1, half)
    if (bias := blocks.output_bias(1, half)) is not None:
        added = added + bias
    torch.testing.assert_close(hidden + added, blocks.run_half(1, half, hidden), rtol=1e-4, atol=1e-4)


def test_nothing_stays_behind_in_the_model(windows):
    model = build("llama")
    before = logits_of(model, windows[:2])
    blocks = blocks_of(model, LENGTH)
    blocks.features(0, "ffn", blocks.embed(torch.as_tensor(windows[:2])))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(logits_of(model, windows[:2]), before)


def test_batches_cover_every_window_once_and_stay_small(monkeypatch):
    monkeypatch.setattr("trimtab.compression.pruning.blocks.BATCH_TOKENS", 5 * LENGTH)
    blocks = blocks_of(build("llama"), LENGTH)
    rows = [list(range(40))[part] for part in blocks.batches(40)]
    assert [row for part in rows for row in part] == list(range(40))
    assert {len(part) for part in rows} == {5}
