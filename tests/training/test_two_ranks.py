"""Two real processes over gloo against one: the same global batch must give the same weights."""

import os
import signal

import msgspec
import psutil
import pytest
import torch

from trimtab.parallel.launching.launch import launch
from trimtab.spec.errors import EngineError
from trimtab.spec.layout import Layout
from trimtab.training.job import TrainResult


@pytest.fixture(scope="module")
def pair():
    with launch(Layout(data=2), threads=1) as group:
        yield group


def run(group, job, on_event=None):
    return msgspec.convert(group.run("train", msgspec.to_builtins(job), on_event), TrainResult)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw", "learning_rate": 0.003},
        {"optimizer": "muon", "learning_rate": 0.01},
        {"objective": "distillation", "batch": 5, "micro_batch": 1, "cross_entropy_weight": 0.3},
    ],
    ids=["adamw", "muon", "distillation with uneven shares"],
)
def test_two_ranks_train_as_one(pair, make_job, here, weights, tmp_path, tiny, settings):
    if "objective" in settings:
        settings = settings | {"teacher": str(tiny.teacher)}
    one, two = (make_job(**settings, tokens=64 * 3, output=str(tmp_path / name)) for name in ("one", "two"))
    alone, together = here(one), run(pair, two)
    assert together.steps == alone.steps
    assert together.loss == pytest.approx(alone.loss, rel=1e-5)
    assert together.validation_loss == pytest.approx(alone.validation_loss, rel=1e-5)
    before, wanted, found = weights(tiny.model), weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, weight in wanted.items():
        moved = (weight - before[name]).abs().max().item()
        assert moved > 1e-4
        # Summing in another order costs a few ulp; a missing gradient sync would cost about `moved`.
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=max(1e-6, 2e-3 * moved))


def test_two_ranks_resume_bit_for_bit(pair, make_job, weights, tmp_path):
    """Checkpoints at every step; the last is thrown away, so the resumed run must redo steps from the one before."""
    folder = tmp_path / "checkpoints"
    job = make_job(checkpoints=str(folder), checkpoint_seconds=0.0, output=str(tmp_path / "whole"))
    run(pair, job)
    (folder / "step-11" / "metadata.json").unlink()
    run(pair, msgspec.structs.replace(job, resume=True, output=str(tmp_path / "resumed")))
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "resumed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_one_rank_goes_on_from_twos_checkpoint(pair, make_job, here, weights, tmp_path):
    folder = tmp_path / "checkpoints"
    job = make_job(checkpoints=str(folder), checkpoint_seconds=0.0, output=str(tmp_path / "two"))
    run(pair, job)
    result = here(msgspec.structs.replace(job, resume=True, output=str(tmp_path / "one")))
    assert result.steps == 12
    two, one = weights(tmp_path / "two"), weights(tmp_path / "one")
    for name, weight in two.items():
        torch.testing.assert_close(one[name], weight, rtol=1e-3, atol=1e-4)


def test_rate_of_two(pair, make_job):
    rate = pair.run("rate", msgspec.to_builtins(make_job()))
    assert rate["tokens_per_second"] > 0


def test_a_rank_killed_in_training_is_named_and_the_run_resumes(make_job, here, weights, tmp_path):
    folder = tmp_path / "checkpoints"
    job = make_job(tokens=64 * 3000, checkpoints=str(folder), checkpoint_seconds=0.2)
    with launch(Layout(data=2), threads=1) as group:
        pids = group.pids

        def kill_when_saved(_):
            if any(folder.glob("step-*")) and psutil.pid_exists(pids[1]):
                os.kill(pids[1], signal.SIGKILL)

        with pytest.raises(EngineError, match="rank 1 of 2 was killed by SIGKILL"):
            run(group, job, kill_when_saved)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    saved = max(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))
    short = msgspec.structs.replace(job, resume=True)
    asked = iter([False, True])
    assert here(short, wants_stop=lambda: next(asked)).steps == saved + 1
