"""Every strategy against one process, in float64, in one group of ranks; and checkpoints from any to any."""

import msgspec
import pytest

from trimtab.parallel.launching.launch import launch
from trimtab.spec.layout import Layout, parse_layout
from trimtab.training.parity.job import ParityJob, ParityResult

# World at most 8. Micro-batches: of a share of 8 sequences over data × shard, all at once and in two parts;
# pipelines have two a rank at least, then twice as many.
PLAIN = {
    "ddp": "data=2",
    "zero1": "data=2,zero=1",
    "fsdp-z2": "shard=2",
    "fsdp-z3": "shard=2,reshard=on",
    "hsdp": "data=2,shard=2",
    "context": "context=2",
    "context+fsdp": "context=2,shard=2",
}
# These hold embedding and head in ways that could untie them, so they run tied and untied.
TIED_OR_NOT = {
    "tp": "tensor=2",
    "tp+sp": "tensor=2,sequence=on",
    "fsdp+tp": "shard=2,tensor=2",
    "gpipe": "pipeline=2,schedule=gpipe",
    "1f1b": "pipeline=2",
    "interleaved": "pipeline=2,virtual=2,schedule=interleaved",
    "zero-bubble": "pipeline=2,schedule=zero_bubble",
    "pp+fsdp": "shard=2,pipeline=2",
}
OF_EIGHT = {"3d": "data=2,tensor=2,pipeline=2"}
TOO_MANY_STAGES = "pipeline=2,virtual=4,schedule=interleaved"
LARGEST = {"3d, fsdp": "shard=2,tensor=2,sequence=on,pipeline=2"}
SELECTIVE = {"tp": "tensor=2,recompute=selective", "fsdp": "shard=2,recompute=selective"}


ALL = ((1, "none"), (1, "full"), (2, "none"), (2, "full"))
BOTH_ENDS = (ALL[0], ALL[-1])


def variants(layouts, chosen):
    """Each layout with accumulation of one or two parts, and recompute off or on."""
    for layout in map(parse_layout, layouts.values()):
        share = 8 // (layout.data * layout.shard)
        for accumulation, recompute in chosen:
            yield msgspec.structs.replace(
                layout,
                micro_batch=max(1, share // (layout.pipeline * accumulation)),
                recompute=recompute if layout.recompute == "none" else layout.recompute,
            )


# One of each kind; the slow test runs them all.
FEW = {name: PLAIN[name] for name in ("zero1", "fsdp-z3", "hsdp", "context")}
FEW |= {name: TIED_OR_NOT[name] for name in ("tp+sp", "fsdp+tp", "interleaved", "pp+fsdp")}
QUICK = {
    "tiny": [*variants(FEW, BOTH_ENDS[1:])],
    "tiny-untied": [*variants({"tp+sp": "tensor=2,sequence=on", "1f1b": "pipeline=2"}, BOTH_ENDS[:1])],
}
WHOLE = {
    "tiny": [
        *variants(PLAIN | TIED_OR_NOT | OF_EIGHT, ALL),
        *variants(LARGEST | SELECTIVE, BOTH_ENDS[:1]),
    ],
    "tiny-untied": [*variants(TIED_OR_NOT | OF_EIGHT, BOTH_ENDS)],
}
# Encoders and image models: what needs no knowledge of their layers. Batch norms see a micro-batch at a time, so
# those train in another way.
OTHER_KINDS = {
    "tiny-fill-mask": ("data=2", "data=2,zero=1", "shard=2,reshard=on,recompute=full,micro_batch=2"),
    "tiny-text-classification": ("data=2,micro_batch=2", "data=2,zero=1", "shard=2,reshard=on"),
    "tiny-image-classification": ("data=2", "data=2,zero=1", "shard=2,reshard=on", "data=2,shard=2"),
}
OTHER_KINDS_SLOW = ("data=4,zero=1", "data=2,shard=2", "shard=2,reshard=on", "shard=4")


@pytest.fixture(scope="module")
def group():
    with launch(Layout(data=4), threads=1) as started:
        yield started


@pytest.fixture(scope="module")
def group_of_eight():
    with launch(Layout(data=8), threads=1) as started:
        yield started


def check(group, model, layouts, steps=5):
    """All in one job: starting ranks costs more than most cases."""
    job = ParityJob(layouts=tuple(layouts), model=model, steps=steps)
    answer = group.run("parity", msgspec.to_builtins(job))
    cases = msgspec.convert(answer, ParityResult).cases
    assert [case.layout for case in cases] == [str(layout) for layout in layouts]
    assert [case for case in cases if case.refused is not None] == []
    wrong = [
        case
        for case in cases
        if not case.equal or max(case.max_abs_loss_difference, case.max_abs_parameter_difference) > 1e-12
    ]
    assert wrong == []


@pytest.mark.parametrize("model", QUICK)
def test_every_strategy_equals_one_process(group, model):
    check(group, model, QUICK[model], steps=3)


@pytest.mark.parametrize("model", OTHER_KINDS)
def test_encoders_and_image_models_equal_one_process(group, model):
    check(group, model, [parse_layout(text) for text in OTHER_KINDS[model]])


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHER_KINDS)
def test_encoders_and_image_models_go_on_from_another_layouts_checkpoint(group, tmp_path, model):
    layouts = tuple(parse_layout(text) for text in ("data=2,zero=1", "shard=2"))
    job = ParityJob(layouts=layouts, model=model, resume=True, steps=2, steps_after=2, scratch=str(tmp_path))
    answer = msgspec.convert(group.run("parity", msgspec.to_builtins(job)), ParityResult)
    assert len(answer.cases) == 4
    for case in answer.cases:
        assert max(case.max_abs_loss_difference, case.max_abs_parameter_difference) <= 1e-12, case
        assert case.max_abs_moment_difference <= 1e-12, case
        assert case.equal, case


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHER_KINDS)
def test_encoders_and_image_models_in_four_processes(group, model):
    check(group, model, [parse_layout(text) for text in OTHER_KINDS_SLOW])


@pytest.mark.slow
@pytest.mark.parametrize("model", WHOLE)
def test_the_whole_matrix_equals_one_process(group_of_eight, model):
    check(group_of_eight, model, WHOLE[model])


@pytest.mark.slow
def test_any_layout_goes_on_from_any_others_checkpoint(group, tmp_path):
    layouts = tuple(parse_layout(text) for text in ("data=1", "data=2", "shard=2", "tensor=2", "pipeline=2"))
    job = ParityJob(layouts=layouts, resume=True, steps=3, scratch=str(tmp_path))
    answer = msgspec.convert(group.run("parity", msgspec.to_builtins(job)), ParityResult)
    assert len(answer.cases) == 25
    for case in answer.cases:
        assert case.max_abs_loss_difference <= 1e-12, case
        assert case.max_abs_moment_difference <= 1e-12, case
        assert (case.random_state_equal, case.data_position_equal, case.equal) == (True, True, True), case


def test_what_cannot_be_laid_out_is_refused_in_a_sentence(group):
    layouts = tuple(parse_layout(text) for text in ("tensor=4", TOO_MANY_STAGES, "data=2,micro_batch=4"))
    job = ParityJob(layouts=layouts, steps=1)
    answer = msgspec.convert(group.run("parity", msgspec.to_builtins(job)), ParityResult)
    by_layout = {case.layout: case for case in answer.cases}
    assert "num_key_value_heads is 2, which 4 ranks cannot share" in by_layout["tensor=4"].refused
    assert "5 layers cannot fill 8 stages" in by_layout[TOO_MANY_STAGES].refused
    assert by_layout["data=2,micro_batch=4"].equal
    assert not answer.equal


def test_a_dropped_sum_is_found():
    """The negative control: without one all-reduce the check must fail, and say where."""
    from broken_ranks import broken

    from trimtab.parallel.launching.script import spawn

    spawn(broken, Layout(data=2))
