"""What is kept, what is refused, and what a damaged or changed checkpoint says."""

import itertools
import json
import resource
import shutil
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec import checkpoints
from trimtab.spec.errors import IntegrityError, TrimtabError, UsageError
from trimtab.training import checkpoint
from trimtab.training.checkpoint import surplus

losses = st.dictionaries(st.integers(0, 1000), st.none() | st.floats(0, 10), max_size=12)


@given(losses, st.integers(1, 5), st.booleans())
def test_the_last_stay_and_the_best_if_asked(kept, keep, best):
    gone = surplus(list(kept.items()), keep=keep, best=best)
    stays = sorted(set(kept) - set(gone))
    assert stays[-keep:] == sorted(kept)[-keep:]
    measured = [loss for loss in kept.values() if loss is not None]
    allowed = keep + int(best and bool(measured))
    assert len(stays) <= allowed
    if best and measured:
        assert min(measured) in [kept[step] for step in stays]


@pytest.fixture
def saved(make_job, here, tmp_path):
    """A job with checkpoints of steps 11 and 12 of 12."""
    job = make_job(checkpoints=str(tmp_path / "c"), checkpoint_seconds=0.0)
    here(job)
    return msgspec.structs.replace(job, resume=True)


def tear_metadata(path):
    (path / "metadata.json").unlink()


def tear_record(path):
    (path / "progress.json").write_text("{")


def tear_shard(path):
    (path / "rank0.safetensors").unlink()


def cut_shard(path):
    with (path / "rank0.safetensors").open("r+b") as file:
        file.truncate(100)


def flip_a_bit(path):
    with (path / "rank0.safetensors").open("r+b") as file:
        file.seek(-5, 2)
        byte = file.read(1)[0]
        file.seek(-5, 2)
        file.write(bytes([byte ^ 1]))


TEARS = [tear_metadata, tear_record, tear_shard, cut_shard, flip_a_bit]


@pytest.mark.parametrize("tear", TEARS)
def test_a_torn_checkpoint_is_refused_by_name(saved, here, tear, tmp_path):
    """The one before is taken, and the torn one named; with none left the run is refused."""
    whole = tmp_path / "c" / "step-12"
    checkpoint.check(whole)
    tear(whole)
    with pytest.raises(IntegrityError, match="checkpoint step-12 is torn"):
        checkpoint.check(whole)
    (tmp_path / "c" / ".step-13.part").mkdir()
    events = []
    kept = tmp_path / "kept"
    shutil.copytree(whole, kept)
    assert here(saved, on_event=events.append).steps == 12
    assert "step-12 is torn" in next(e["message"] for e in events if e["kind"] == "warning")
    assert not (tmp_path / "c" / ".step-13.part").exists()
    for path in (tmp_path / "c").glob("step-*"):
        shutil.rmtree(path)
    shutil.copytree(kept, whole)
    with pytest.raises(IntegrityError, match="step-12 is torn"):
        here(saved)


def test_another_model_tokenizer_data_or_setting_is_named(saved, here, tiny, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(UsageError, match="step-12 belongs to another job: another model \\("):
        here(msgspec.structs.replace(saved, model=str(model)))
    (model / "config.json").write_bytes((tiny.model / "config.json").read_bytes())
    tokenizer = model / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(UsageError, match="another tokenizer \\("):
        here(msgspec.structs.replace(saved, model=str(model)))
    data = tmp_path / "data"
    shutil.copytree(tiny.data, data)
    record = json.loads((data / "prepared.json").read_text())
    (data / "prepared.json").write_text(json.dumps(record | {"digest": "0" * 64}))
    with pytest.raises(UsageError, match="another data \\(") as caught:
        here(msgspec.structs.replace(saved, data=str(data)))
    assert "--accept-changes" in caught.value.remedy
    with pytest.raises(UsageError, match="another settings"):
        here(msgspec.structs.replace(saved, learning_rate=0.01))
    told = msgspec.structs.replace(saved, data=str(data), model=str(model), accept_changes=True)
    events = []
    assert here(told, on_event=events.append).steps == 12
    assert "another tokenizer, another data; going on" in events[0]["message"]


def test_a_copy_of_the_same_model_elsewhere_is_the_same(saved, here, tiny, tmp_path):
    shutil.copytree(tiny.model, tmp_path / "moved")
    assert here(msgspec.structs.replace(saved, model=str(tmp_path / "moved"))).steps == 12


def test_a_checkpoint_that_does_not_fit_is_a_sentence(saved, here, tiny):
    with pytest.raises(UsageError, match="does not fit the model"):
        here(msgspec.structs.replace(saved, model=str(tiny.teacher), accept_changes=True))


def test_the_best_is_kept_beside_the_last(make_job, here, tmp_path):
    """A rate that spoils the model at the end: the best held-out loss is in the middle."""
    folder = tmp_path / "c"
    job = make_job(
        checkpoints=str(folder), keep=1, keep_best=True, validation_points=12, checkpoint_seconds=0.0,
        optimizer="adamw", learning_rate=0.3, decay=0.01, warmup=1.0,
    )  # fmt: skip
    result = here(job)
    measured = {point.tokens // 64: point.validation_loss for point in result.curve}
    best = min(measured, key=measured.get)
    assert best < 11
    assert checkpoints.steps(folder) == [best, 12]
    assert checkpoint.progress_of(folder / f"step-{best}").validation_loss == measured[best]


def test_changing_weights_at_once_does_not_change_what_is_saved(make_job, here, weights, tmp_path):
    """Saving goes on while the next steps move the weights; what it holds must be the state it was asked for."""
    here(make_job(output=str(tmp_path / "whole"), checkpoints=str(tmp_path / "c"), checkpoint_seconds=0.0))
    for step in checkpoints.steps(tmp_path / "c"):
        again = make_job(
            output=str(tmp_path / f"from-{step}"), checkpoints=str(tmp_path / f"c{step}"), resume=True
        )
        shutil.copytree(tmp_path / "c" / f"step-{step}", tmp_path / f"c{step}" / f"step-{step}")
        here(msgspec.structs.replace(again, checkpoint_seconds=30.0))
        whole, found = weights(tmp_path / "whole"), weights(tmp_path / f"from-{step}")
        assert all((whole[name] == found[name]).all() for name in whole)


class Limit:
    """`wants_stop` that, on its calls from `first` to `last`, lets no file of this process grow over a few kB.

    It waits until the checkpoint before is whole, so that which one fails is sure.
    """

    def __init__(self, folder, first, last, stop_at=None):
        self.calls, self.folder, self.first, self.last, self.stop_at = (
            itertools.count(),
            folder,
            first,
            last,
            stop_at,
        )

    def __call__(self):
        call = next(self.calls)
        if call == self.first:
            end = time.monotonic() + 60
            while not (self.folder / f"step-{call - 1}").exists() and time.monotonic() < end:
                time.sleep(0.01)
        limit_files(4096 if self.first <= call <= self.last else resource.RLIM_INFINITY)
        return call == self.stop_at


def limit_files(most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.fixture
def no_limit():
    yield
    limit_files(resource.RLIM_INFINITY)


@pytest.mark.usefixtures("no_limit")
def test_a_full_disk_keeps_the_last_good_checkpoint_and_training_goes_on(make_job, here, tmp_path):
    folder = tmp_path / "c"
    events = []
    job = make_job(checkpoints=str(folder), checkpoint_seconds=0.0)
    result = here(job, on_event=events.append, wants_stop=Limit(folder, 5, 8))
    assert result.steps == 12
    said = [event["message"] for event in events if event["kind"] == "warning"]
    assert any("step 5 was not saved" in text and "last good one is step-4" in text for text in said)
    assert checkpoints.steps(folder) == [11, 12]
    assert not list(folder.glob(".*"))


@pytest.mark.usefixtures("no_limit")
def test_a_full_disk_at_the_end_names_the_last_good_one(make_job, here, tmp_path):
    folder = tmp_path / "c"
    job = make_job(checkpoints=str(folder), checkpoint_seconds=0.0)
    with pytest.raises(TrimtabError, match=r"step 6 was not saved .* the last good one is step-5"):
        here(job, wants_stop=Limit(folder, 6, 6, stop_at=6))
    assert checkpoints.steps(folder) == [4, 5]
    checkpoint.check(folder / "step-5")


def test_precision_is_chosen_once_a_run(make_job, here, tmp_path, monkeypatch):
    """A machine that is busy, or another one, must not change it in the middle."""
    job = make_job(checkpoints=str(tmp_path / "c"), checkpoint_seconds=0.0, precision="auto")
    monkeypatch.setattr("trimtab.training.precision._gain", lambda _: 1.0)
    assert here(job).precision == "float32"
    monkeypatch.setattr("trimtab.training.precision._gain", lambda _: 100.0)
    assert here(msgspec.structs.replace(job, resume=True)).precision == "float32"
    again = msgspec.structs.replace(job, checkpoints=str(tmp_path / "d"))
    assert here(again).precision == "bf16"


FOREIGN = (
    "step-10-backup",
    "step-12 (copy)",
    "step-",
    "step-x",
    "step-012",
    ".DS_Store",
    "step-11~",
    "notes",
)


@pytest.mark.parametrize("folders", [True, False])
def test_foreign_names_among_checkpoints_end_no_run_and_stay(saved, here, tmp_path, folders):
    folder = tmp_path / "c"
    for name in (*FOREIGN, ".step-backup.part"):
        if folders:
            (folder / name).mkdir()
            (folder / name / "kept").write_text("mine")
        else:
            (folder / name).write_text("mine")
    # Files of our own form of name are nobody's checkpoint either.
    (folder / "step-99").write_text("mine")
    events = []
    assert here(msgspec.structs.replace(saved, keep=1), on_event=events.append).steps == 12
    assert events == []
    assert checkpoints.steps(folder) == [11, 12]
    left = {path.name for path in folder.iterdir()}
    assert left == {*FOREIGN, ".step-backup.part", "step-99", "step-11", "step-12"}
    checkpoints.remove_all(folder)
    assert {path.name for path in folder.iterdir()} == left - {"step-11", "step-12"}


def test_a_copy_under_another_steps_name_is_passed_over_and_stays(saved, here, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(folder / "step-11", folder / "step-99")
    shutil.rmtree(folder / "step-12")
    events = []
    assert here(saved, on_event=events.append).steps == 12
    assert "step-99 is torn: it is a copy of step 11" in events[0]["message"]
    # It counts as none of the last that are kept.
    assert checkpoints.steps(folder) == [11, 12, 99]


def test_another_length_is_accepted_if_told_to(saved, here, tmp_path):
    longer = msgspec.structs.replace(saved, tokens=64 * 20)
    with pytest.raises(UsageError, match="another settings"):
        here(longer)
    events = []
    result = here(msgspec.structs.replace(longer, accept_changes=True), on_event=events.append)
    assert result.steps == 20
    assert "was made with another settings; going on, as told" in events[0]["message"]
    assert min(event["step"] for event in events if event["kind"] == "progress") > 12
    shorter = msgspec.structs.replace(saved, tokens=64 * 5, accept_changes=True)
    assert here(shorter).steps == 20
