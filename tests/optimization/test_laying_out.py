import json

import pytest

from machine_profiles import machine_profile
from trimtab.optimization.expectation import expect
from trimtab.optimization.laying_out import MOST_TRIED, candidates, choose_layout
from trimtab.planning.training.division import as_run
from trimtab.spec.layout import Layout, parse_layout
from trimtab.spec.profile import CollectiveRate, save_profile
from trimtab.spec.recipe import Recipe
from trimtab.store.profiles import machine_profile_path
from trimtab.training.job import TrainJob

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 320,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
PROFILE = machine_profile(
    collectives=(
        CollectiveRate(
            operation="all_reduce", backend="gloo", ranks=2, latency_seconds=1e-3, bytes_per_second=1e9
        ),
    )
)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    def make(**changes):
        values = {"model": str(tmp_path), "data": "data", "output": "output", "tokens": 1000, "batch": 8}
        return TrainJob(**values | {"sequence_length": 32, "optimizer": "adamw"} | changes)

    return make


def test_one_process_and_plain_replicas_are_always_tried_beside_the_planners_best(job):
    found = candidates(job(), PROFILE)
    assert found[:2] == [Layout(), Layout(data=2)]
    assert 2 < len(found) <= MOST_TRIED
    assert all(layout.world == 2 and layout.zero < 2 for layout in found[1:])
    # The same as plain replicas, written out.
    assert Layout(data=2, micro_batch=4) not in found


def test_what_muon_cannot_do_is_not_tried(job):
    assert all(layout.whole for layout in candidates(job(optimizer="muon"), PROFILE))


def test_what_will_be_cut_smaller_keeps_its_heads_together(job):
    alone = job(batch=1)
    assert any(layout.tensor > 1 for layout in candidates(alone, PROFILE))
    assert candidates(alone, PROFILE, cut=True) == [Layout()]


def test_a_batch_that_does_not_divide_leaves_one_process(job):
    assert candidates(job(batch=7, optimizer="muon"), PROFILE) == [Layout()]


def test_nothing_is_expected_of_what_the_planner_does_not_know(job):
    assert expect(job(layout=Layout(data=2)), PROFILE, precision="float32").step_seconds > 0
    assert expect(job(layout=Layout(data=4)), PROFILE, precision="float32") is None
    assert expect(job(layout=Layout(data=2), teacher="x"), PROFILE, precision="float32") is None
    assert expect(job(layout=Layout(data=2), compile=True), PROFILE, precision="float32") is None
    # No product was measured in 16 bits.
    assert expect(job(layout=Layout(data=2)), PROFILE, precision="bf16") is None


@pytest.mark.parametrize(
    ("layout", "micro_batch"),
    [
        ("data=2", 4),
        ("pipeline=2", 2),
        ("pipeline=2,micro_batch=1", 1),
        ("data=4,pipeline=2", 1),
        ("data=8", 1),
    ],
)
def test_a_micro_batch_that_is_not_named_is_what_training_takes(layout, micro_batch):
    assert as_run(parse_layout(layout), 8).micro_batch == micro_batch


@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_encoders_and_image_models_are_trained_without_a_plan(job, tmp_path, kind):
    found = job(layout=Layout(data=2))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"model_type": kind}))
    assert expect(found, PROFILE, precision="float32") is None
    save_profile(PROFILE, machine_profile_path(tmp_path))
    recipe = Recipe.parse("version: 1\nname: it\nmodel: ./m\ntask: fill-mask\ndata: {train: {text: a}}\n")
    # Neither workspace nor data is looked at: nothing is tried.
    assert choose_layout(recipe, None, None, None, tmp_path, print) is recipe
