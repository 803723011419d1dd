import pytest
import torch
from families_under_test import LENGTH, blocks_of, build, info_of, logits_of, shape_of
from torch.nn import functional

from trimtab.compression.pruning.decoder import cut
from trimtab.compression.pruning.depth import influence, perplexity, removal_order
from trimtab.models.families import FAMILIES


def _silence(blocks, layer, factor=0.0):
    """Makes a block pass its input through."""
    with torch.no_grad():
        for half in ("attention", "ffn"):
            blocks.output_matrix(layer, half).mul_(factor)


@pytest.mark.parametrize("how", ["perplexity", "influence"])
@pytest.mark.parametrize("idle", [0, 2, 3])
def test_a_layer_that_does_nothing_goes_first(how, idle, windows):
    model = build("llama")
    blocks = blocks_of(model, LENGTH)
    # Text that the model itself finds likely: on noise, removing a layer may well improve the loss.
    tokens = torch.as_tensor(windows[:8])
    _silence(blocks, idle)
    if how == "perplexity":
        tokens = logits_of(model, tokens).argmax(dim=-1)
        blocks = _Parrot(blocks)
    order = removal_order(blocks, info_of(model), tokens, how=how)
    assert order[0] == idle
    assert sorted(order) == [0, 1, 2, 3]


class _Parrot:
    """Blocks whose loss is the distance of the hidden state from the whole model's, so that the whole is best."""

    def __init__(self, blocks):
        self._blocks, self.count, self.batches, self.embed, self.run = (
            blocks,
            blocks.count,
            blocks.batches,
            blocks.embed,
            blocks.run,
        )

    def nll(self, hidden, tokens):
        whole = self._blocks.embed(tokens)
        for layer in range(self.count):
            whole = self._blocks.run(layer, whole)
        return float((hidden - whole).square().sum())


def test_influence_is_one_minus_the_cosine(windows):
    model = build("llama")
    blocks = blocks_of(model, LENGTH)
    tokens = torch.as_tensor(windows[:4])
    with torch.no_grad():
        states = model(input_ids=tokens, output_hidden_states=True).hidden_states
    wanted = 1 - functional.cosine_similarity(states[1], states[2], dim=-1).mean()
    assert influence(blocks, tokens)[1] == pytest.approx(float(wanted), abs=1e-5)


def test_greedy_takes_the_layer_whose_absence_hurts_least(windows):
    model = build("llama", seed=4)
    tokens = torch.as_tensor(windows[:8])
    order = removal_order(blocks_of(model, LENGTH), info_of(model), tokens, how="perplexity")
    family = FAMILIES["llama"]

    def without(gone):
        shape = shape_of(model, layers=tuple(layer for layer in range(4) if layer not in gone))
        return perplexity(blocks_of(cut(model, family, info_of(model), shape, []), LENGTH), tokens)

    assert order[0] == min(range(4), key=lambda layer: without({layer}))
    rest = [layer for layer in range(4) if layer != order[0]]
    assert order[1] == min(rest, key=lambda layer: without({order[0], layer}))


def test_perplexity_is_the_models(windows):
    model = build("gpt2")
    tokens = torch.as_tensor(windows[:5])
    loss = functional.cross_entropy(logits_of(model, tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert perplexity(blocks_of(model, LENGTH), tokens) == pytest.approx(float(loss.exp()), rel=1e-4)
