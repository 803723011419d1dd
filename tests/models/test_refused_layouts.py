"""One place says which layouts our training runs with which model."""

import pytest

from trimtab.models.families import ENCODERS, FAMILIES, IMAGE_MODELS
from trimtab.models.layouts import refuse_layout, refused_layout
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, parse_layout

CUTS = ("tensor=2", "pipeline=2", "context=2")


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_decoders_are_cut_but_gpt2s_layers(kind):
    refused = {text for text in CUTS if refused_layout(kind, parse_layout(text))}
    assert refused == ({"tensor=2"} if kind == "gpt2" else set())


@pytest.mark.parametrize("kind", [*ENCODERS, *IMAGE_MODELS])
def test_encoders_and_image_models_share_batches_alone(kind):
    for text in CUTS:
        assert "cuts the layers or sequences of decoders" in refused_layout(kind, parse_layout(text))
    for text in ("data=4", "data=2,shard=2,reshard=on", "data=2,zero=1"):
        assert refused_layout(kind, parse_layout(text)) is None
    refused = refused_layout(kind, Layout(recompute="full"))
    assert (refused is not None) == (kind in IMAGE_MODELS)


@pytest.mark.parametrize(
    ("text", "optimizer", "words"),
    [
        ("data=2,zero=2", None, "zero=2 is planned for"),
        ("data=2,zero=1,tensor=2", None, "replicas of whole weights"),
        ("shard=2", "muon", "Muon makes whole matrices"),
        ("data=2", "sgd", "sgd is planned for"),
    ],
)
def test_what_is_planned_for_and_not_run(text, optimizer, words):
    with pytest.raises(UsageError, match=words):
        refuse_layout("llama", parse_layout(text), optimizer=optimizer)
    assert refused_layout("llama", parse_layout("data=2"), optimizer="muon") is None
