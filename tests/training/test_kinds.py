"""Encoders and image models through the loop: they learn, go on where they were, and are stock folders in the end."""

import itertools
import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toys import KINDS, job_of, plainly_measured, stock
from trimtab.data.prepared import Prepared
from trimtab.data.prepared_images import PreparedImages


@pytest.fixture(autouse=True)
def one_thread():
    """Steps of a toy are so short that threads wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """Task, folder with data and model, objective and settings of its job."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *KINDS[request.param](folder)


def test_it_learns_and_the_saved_folder_is_what_was_measured(kind, here):
    task, folder, objective, settings = kind
    events = []
    job = job_of(folder, objective, settings)
    result = here(job, on_event=events.append)
    last = result.curve[-1]
    loss, accuracy = plainly_measured(job, folder / "t.jsonl")
    assert math.isclose(last.validation_loss, loss, rel_tol=1e-4)
    data = Path(job.data)
    if task == "fill-mask":
        # Who knows how often each token occurs, and nothing of its neighbours, cannot do better than this.
        ids = Prepared.load(data).tokens("train")
        shares = np.bincount(ids) / len(ids)
        assert loss < 0.6 * -sum(share * math.log(share) for share in shares if share)
        assert last.validation_accuracy is None
        assert result.tokens == settings["tokens"]
        assert (events[-1]["unit"], events[-1]["tokens"]) == ("tokens", settings["tokens"])
    else:
        classes = (PreparedImages if task.startswith("image") else Prepared).load(data).classes
        assert loss < 0.5 * math.log(len(classes))
        assert last.validation_accuracy == pytest.approx(accuracy)
        assert accuracy > 0.9
        assert (result.tokens, result.samples) == (0, settings["samples"])
        assert (events[-1]["unit"], events[-1]["samples"]) == ("samples", settings["samples"])
        assert "tokens_per_second" not in events[-1]
        assert stock(task, job.output).config.id2label == dict(enumerate(classes))


def test_resuming_gives_the_same_weights_bit_for_bit(kind, here, tmp_path):
    """With dropout, batch norms' statistics and masks: all of it is in the checkpoint or drawn again."""
    _, folder, objective, settings = kind
    short = {name: amount // 10 for name, amount in settings.items() if name in ("tokens", "samples")}
    job = job_of(folder, objective, settings | short, output=str(tmp_path / "whole"))
    whole = here(job)
    part = msgspec.structs.replace(job, checkpoints=str(tmp_path / "c"), output=str(tmp_path / "parts"))
    asked = itertools.count()
    assert here(part, wants_stop=lambda: next(asked) == 2).stopped
    torch.manual_seed(99)
    resumed = here(msgspec.structs.replace(part, resume=True))
    assert resumed.curve == whole.curve
    left, right = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
