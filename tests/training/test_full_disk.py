"""No room and no right: told before the first step where it can be, else in a sentence; no step is lost."""

import errno
import os
import resource
import shutil
from collections import namedtuple

import msgspec
import pytest

from trimtab.parallel.launching.launch import launch
from trimtab.parallel.launching.lines import Done, Failed
from trimtab.parallel.launching.rank import attempt
from trimtab.parallel.ranks import Ranks
from trimtab.spec import checkpoints
from trimtab.spec.errors import TrimtabError
from trimtab.spec.layout import Layout, parse_layout
from trimtab.training import task

NO_ROOM_OR_RIGHT = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def as_a_rank(job, events=None):
    """The answer of a rank that does the job alone."""
    tell = events.append if events is not None else (lambda _: None)
    return attempt(task, msgspec.to_builtins(job), Ranks(), tell, lambda: False)


@pytest.mark.parametrize("number", NO_ROOM_OR_RIGHT)
def test_an_export_that_cannot_be_written_loses_no_step(
    make_job, here, weights, tmp_path, monkeypatch, number
):
    here(make_job(output=str(tmp_path / "wanted"), checkpoints=str(tmp_path / "other")))
    job = make_job(output=str(tmp_path / "trained"), checkpoints=str(tmp_path / "c"), resume=True)

    def full(*_):
        raise OSError(number, os.strerror(number), str(tmp_path / "trained"))

    with monkeypatch.context() as patch:
        patch.setattr("trimtab.training.setup.export", full)
        answer = as_a_rank(job)
    assert isinstance(answer, Failed)
    fault = answer.to_error()
    assert os.strerror(number) in fault.message
    assert fault.where == str(tmp_path / "trained")
    assert "Free space or get the right" in fault.remedy
    assert "training goes on from step 12" in fault.remedy
    assert not (tmp_path / "trained").exists()
    events = []
    assert isinstance(as_a_rank(job, events), Done)
    assert events == []
    wanted, found = weights(tmp_path / "wanted"), weights(tmp_path / "trained")
    assert all((wanted[name] == found[name]).all() for name in wanted)


@pytest.fixture
def no_limit():
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


@pytest.mark.usefixtures("no_limit")
def test_where_neither_checkpoint_nor_model_fits_both_are_told(make_job, tmp_path, monkeypatch):
    """A file of this process cannot grow over 4 kB, so the libraries' own writes fail."""
    from trimtab.training.loop import Run

    finish = Run.finish

    def limited(run):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        finish(run)

    monkeypatch.setattr(Run, "finish", limited)
    events = []
    answer = as_a_rank(make_job(checkpoints=str(tmp_path / "c")), events)
    assert isinstance(answer, Failed)
    assert "File too large" in answer.message
    assert "there is no checkpoint yet" in answer.remedy
    said = [event["message"] for event in events if event["kind"] == "warning"]
    assert any(
        "the checkpoint of step 12 was not saved" in text and "File too large" in text for text in said
    )
    assert not list(tmp_path.glob("c/.*"))
    assert not list(tmp_path.glob("*output*"))


@pytest.mark.parametrize("layout", ["data=2", "shard=2"])
def test_one_full_disk_of_two_ranks_is_told_as_such(make_job, tmp_path, layout):
    """Which rank wrote does not matter, nor that its neighbour waits for it."""
    job = make_job(tokens=64 * 200, output=str(tmp_path / "trained"), layout=parse_layout(layout))
    job = msgspec.structs.replace(job, optimizer="adamw", checkpoints=str(tmp_path / "c"))
    with launch(Layout(data=2), threads=1) as group:
        # The one that has more to write where both write.
        victim = group.pids[0 if layout == "data=2" else 1]

        def limit(event):
            if event["kind"] == "progress":
                resource.prlimit(victim, resource.RLIMIT_FSIZE, (4096, 4096))

        with pytest.raises(TrimtabError, match="cannot be read or written: File too large") as caught:
            group.run("train", msgspec.to_builtins(job), limit)
    assert caught.value.where == str(tmp_path / "trained")
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize("number", NO_ROOM_OR_RIGHT)
def test_a_folder_that_cannot_be_written_to_is_told_before_the_first_step(
    make_job, tmp_path, monkeypatch, number
):
    def refuse(*_, **named):
        raise OSError(number, os.strerror(number), str(named["dir"]))

    monkeypatch.setattr("trimtab.store.durable.tempfile.TemporaryFile", refuse)
    events = []
    answer = as_a_rank(make_job(output=str(tmp_path / "away" / "trained")), events)
    assert isinstance(answer, Failed)
    assert os.strerror(number) in answer.message
    assert events == []
    assert not (tmp_path / "away").exists()


def test_an_output_below_a_file_is_told_before_the_first_step(make_job, tmp_path):
    (tmp_path / "file").write_text("")
    answer = as_a_rank(make_job(output=str(tmp_path / "file" / "trained")))
    assert isinstance(answer, Failed)
    assert "Not a directory" in answer.message


def test_too_little_room_for_the_model_is_told_before_the_first_step(make_job, tmp_path, monkeypatch):
    usage = namedtuple("Usage", "free")  # noqa: PYI024 (as shutil's)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    events = []
    answer = as_a_rank(make_job(checkpoints=str(tmp_path / "c")), events)
    assert isinstance(answer, Failed)
    assert "the trained model will take" in answer.message
    assert "1000 B are free" in answer.message
    assert events == []
    # For the model alone there is room: training begins, and says what may be lost.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(200_000))
    assert isinstance(as_a_rank(make_job(checkpoints=str(tmp_path / "c")), events), Done)
    assert "there is little room" in events[0]["message"]


def test_a_checkpoint_that_fails_leaves_the_one_before(make_job, here, tmp_path):
    """One of two ranks cannot write while a checkpoint is saved: the old one stays, whole, and the run says so."""
    folder = tmp_path / "c"
    job = make_job(tokens=64 * 24, checkpoints=str(folder), checkpoint_seconds=0.0, layout=Layout(data=2))
    events = []
    with launch(Layout(data=2), threads=1) as group:
        victim = group.pids[1]

        def limit(event):
            events.append(event)
            if event["kind"] == "progress" and checkpoints.steps(folder):
                resource.prlimit(victim, resource.RLIMIT_FSIZE, (4096, 4096))

        group.run("train", msgspec.to_builtins(job), limit)
    said = [event["message"] for event in events if event["kind"] == "warning"]
    assert said
    assert all("was not saved (rank 1: " in text and "the last good one is step-" in text for text in said)
    last = checkpoints.steps(folder)[-1]
    assert last < 24
    events.clear()
    here(msgspec.structs.replace(job, layout=None, resume=True), on_event=events.append)
    assert next(event["step"] for event in events if event["kind"] == "progress") > last
