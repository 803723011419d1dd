"""Training jobs under layouts other than data: real ranks, the same weights as one process, stock folders out."""

import json

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from trimtab.models.info import stored_dtype
from trimtab.models.load import load, save
from trimtab.parallel.launching.launch import launch
from trimtab.spec.errors import UsageError
from trimtab.spec.layout import Layout, parse_layout
from trimtab.training.job import TrainResult
from trimtab.training.parity.job import ParityJob, ParityResult

ADAMW = {"optimizer": "adamw", "learning_rate": 0.003, "tokens": 64 * 4}


@pytest.fixture(scope="module")
def pair():
    with launch(Layout(data=2), threads=1) as group:
        yield group


def run(group, job, on_event=None):
    return msgspec.convert(group.run("train", msgspec.to_builtins(job), on_event), TrainResult)


def assert_close(found, wanted, before):
    for name, weight in wanted.items():
        moved = (weight - before[name]).abs().max().item()
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=max(1e-6, 2e-3 * moved))


@pytest.mark.parametrize(
    "layout",
    [
        "data=2,zero=1",
        "shard=2,reshard=on,micro_batch=1",
        "tensor=2,sequence=on",
        "pipeline=2",
        "context=2,recompute=full",
    ],
)
def test_a_job_trains_as_in_one_process(pair, make_job, here, weights, tmp_path, tiny, layout):
    one, two = (make_job(**ADAMW, output=str(tmp_path / name)) for name in ("one", "two"))
    alone = here(one)
    together = run(pair, msgspec.structs.replace(two, layout=parse_layout(layout)))
    assert together.steps == alone.steps
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert together.validation_loss == pytest.approx(alone.validation_loss, rel=1e-5)
    wanted = weights(tmp_path / "one")
    assert (tmp_path / "two" / "config.json").read_text() == (tmp_path / "one" / "config.json").read_text()
    assert_close(weights(tmp_path / "two"), wanted, weights(tiny.model))


def test_shards_in_host_memory_train_alike(pair, make_job, here, weights, tmp_path, tiny):
    """On a CPU both are host memory; what is seen is that every part of a step takes them where they are."""
    alone = here(make_job(**ADAMW, output=str(tmp_path / "one")))
    job = make_job(**ADAMW, output=str(tmp_path / "two"), offload=True, layout=parse_layout("shard=2"))
    assert run(pair, job).loss == pytest.approx(alone.loss, rel=1e-5)
    assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), weights(tiny.model))


def test_offload_without_shards_is_refused(make_job, here):
    with pytest.raises(UsageError, match="data=1 shares nothing so") as caught:
        here(make_job(**ADAMW, offload=True))
    assert caught.value.where == "training.offload"


def test_distillation_in_a_pipeline(pair, make_job, here, weights, tmp_path, tiny):
    settings = ADAMW | {"objective": "distillation", "teacher": str(tiny.teacher)}
    one, two = (make_job(**settings, output=str(tmp_path / name)) for name in ("one", "two"))
    alone, together = here(one), run(pair, msgspec.structs.replace(two, layout=Layout(pipeline=2)))
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), weights(tiny.model))


def test_a_checkpoint_goes_from_layout_to_layout(pair, make_job, here, weights, tmp_path, tiny):
    """Sharded, then a pipeline, then one process: each goes on from the last one's checkpoint."""
    here(make_job(**ADAMW, output=str(tmp_path / "whole")))
    folder = tmp_path / "checkpoints"
    job = make_job(
        **ADAMW, checkpoints=str(folder), checkpoint_seconds=0.0, output=str(tmp_path / "a"), resume=True
    )
    for layout in ("shard=2", "pipeline=2"):
        run(pair, msgspec.structs.replace(job, layout=parse_layout(layout)))
        newest = max(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
        (newest / "metadata.json").unlink()
    assert here(msgspec.structs.replace(job, layout=None)).steps == 4
    assert_close(weights(tmp_path / "a"), weights(tmp_path / "whole"), weights(tiny.model))


def test_muon_is_refused_where_matrices_are_cut(make_job):
    with launch(Layout(tensor=2), threads=1) as group:
        with pytest.raises(UsageError, match="Muon makes whole matrices orthogonal, and tensor=2") as caught:
            run(group, make_job(optimizer="muon", layout=Layout(tensor=2)))
        assert "adamw" in caught.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["data=2", "shard=2,reshard=on,recompute=full"])
def test_compiled_layers_train_as_they_are_written(pair, make_job, here, tmp_path, layout):
    alone = here(make_job(**ADAMW, output=str(tmp_path / "one")))
    job = make_job(**ADAMW, output=str(tmp_path / "two"), compile=True, layout=parse_layout(layout))
    together = run(pair, job)
    assert together.loss == pytest.approx(alone.loss, rel=1e-4)


@pytest.mark.parametrize("layout", ["shard=2", "tensor=2", "pipeline=2"])
def test_weights_stored_in_another_type_are_the_same_ones(
    pair, make_job, here, weights, tmp_path, tiny, layout
):
    """They change their type once they are cut; one process loads them in float32, as every other one did."""
    half = save(load(tiny.model, "bfloat16"), tmp_path / "half", tiny.model)
    assert stored_dtype(half) == "bfloat16"
    full = save(load(half), tmp_path / "full", half)
    one = make_job(**ADAMW, model=str(full), output=str(tmp_path / "one"))
    two = make_job(**ADAMW, model=str(half), output=str(tmp_path / "two"), layout=parse_layout(layout))
    assert run(pair, two).loss == pytest.approx(here(one).loss, rel=1e-5)
    assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), weights(full))


@pytest.fixture(scope="module")
def parted(tiny, tmp_path_factory):
    """Tied by its config, with a head in its file that differs from the embedding, as merged adapters leave it."""
    folder = save(load(tiny.model), tmp_path_factory.mktemp("parted") / "model", tiny.model)
    held = load_file(folder / "model.safetensors")
    head = held["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(held | {"lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is True
    return folder


def test_tied_by_the_config_and_untied_in_the_file_is_two_weights_in_parity(pair, parted):
    layouts = ("data=2", "shard=2", "tensor=2,sequence=on", "pipeline=2", "context=2")
    job = ParityJob(layouts=tuple(map(parse_layout, layouts)), model=str(parted), steps=2)
    answer = msgspec.convert(pair.run("parity", msgspec.to_builtins(job)), ParityResult)
    assert [case.layout for case in answer.cases if not case.equal] == []


@pytest.mark.parametrize("layout", ["data=2", "shard=2", "tensor=2", "pipeline=2"])
def test_tied_by_the_config_and_untied_in_the_file_trains_and_exports_two_weights(
    pair, make_job, here, weights, tmp_path, parted, layout
):
    one = make_job(**ADAMW, model=str(parted), output=str(tmp_path / "one"))
    two = make_job(**ADAMW, model=str(parted), output=str(tmp_path / "two"), layout=parse_layout(layout))
    assert run(pair, two).loss == pytest.approx(here(one).loss, rel=1e-5)
    wanted, before = weights(tmp_path / "one"), weights(parted)
    assert not torch.equal(wanted["lm_head.weight"], before["lm_head.weight"])
    assert_close(weights(tmp_path / "two"), wanted, before)
    assert json.loads((tmp_path / "two" / "config.json").read_text())["tie_word_embeddings"] is False
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "two")
    assert torch.equal(stock.lm_head.weight, weights(tmp_path / "two")["lm_head.weight"])


# Last: a job that is refused ends the group.
def test_sharded_ranks_that_would_take_unequal_steps_are_refused(pair, make_job):
    job = make_job(**ADAMW, batch=3, layout=parse_layout("shard=2,micro_batch=1"))
    with pytest.raises(UsageError, match="3 samples do not divide over 2 shares"):
        run(pair, job)
