import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from trimtab.data.loader import Loader
from trimtab.data.prepared import Prepared
from trimtab.data.samples.windows import Windows
from trimtab.spec.errors import TrimtabError


def test_the_batch_of_a_loss_that_is_no_number_is_kept_and_named(make_job, here, tiny, tmp_path):
    folder = tmp_path / "c"
    job = make_job(optimizer="adamw", learning_rate=1e30, checkpoints=str(folder))
    with pytest.raises(TrimtabError, match=r"no longer a number at step \d+ of 12") as caught:
        here(job)
    (kept,) = folder.glob("not-a-number-step-*")
    assert str(kept) in caught.value.message
    record = json.loads((kept / "rank0.json").read_text())
    assert record["step"] == int(kept.name.rpartition("-")[2])
    assert record["job"]["learning_rate"] == 1e30
    # The tokens are those that the data order has at that place.
    windows = load_file(kept / "rank0.safetensors")["windows"]
    samples = Windows(Prepared.load(tiny.data).tokens("train"), 16)
    loader = Loader(samples, batch=4, seed=0, position=record["position"])
    assert np.array_equal(windows, loader.next()["windows"])


def test_without_checkpoints_it_lies_beside_the_output(make_job, here, tmp_path):
    with pytest.raises(TrimtabError):
        here(make_job(optimizer="adamw", learning_rate=1e30))
    assert len(list(tmp_path.glob("not-a-number-step-*/rank0.safetensors"))) == 1
