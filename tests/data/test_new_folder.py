"""A prepared folder is there whole or not at all; what is not ours stays; what cannot be written is a sentence."""

import resource
from contextlib import contextmanager

import numpy as np
import pytest

from trimtab.data.prepare import prepare
from trimtab.data.prepare_images import prepare_images
from trimtab.data.prepared import RECORD
from trimtab.spec.errors import EXIT_FAILED, DataError, TrimtabError
from trimtab.spec.recipe_data import Data, Source


@pytest.fixture
def data(write_lines):
    def rows(count, name="a.jsonl"):
        lines = [{"t": f"row {n} says the cat\nsat on {n}"} for n in range(count)]
        return Data(train=Source(jsonl=write_lines(name, lines), text="t"))

    return rows


@contextmanager
def full_disk(left):
    """No file may grow beyond `left` bytes: writing fails as on a full disk, with an error number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("left", [0, 100, 3000])
@pytest.mark.parametrize("own", [True, False], ids=["own", "new"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(data, tokenizer, tmp_path, left, own):
    asked = data(400)
    with full_disk(left), pytest.raises(TrimtabError, match="cannot be written: File too large") as caught:
        prepare(asked, tmp_path / "run" / "data", tokenizer=tokenizer if own else None, vocabulary=400)
    assert caught.value.exit_code == EXIT_FAILED
    assert caught.value.where == str(tmp_path / "run")
    assert "Make room" in caught.value.remedy
    assert ".part" not in str(caught.value)
    assert not list((tmp_path / "run").iterdir())
    prepared = prepare(asked, tmp_path / "run" / "data", tokenizer=tokenizer if own else None, vocabulary=400)
    assert prepared.record.tokens["train"] > 3000


def test_a_full_disk_keeps_what_was_prepared_before(data, tokenizer, tmp_path):
    first = prepare(data(50), tmp_path / "data", tokenizer=tokenizer, vocabulary=None)
    wanted = first.tokens("train").tolist()
    more = data(400)
    with full_disk(1000), pytest.raises(TrimtabError):
        prepare(more, tmp_path / "data", tokenizer=tokenizer, vocabulary=None)
    assert first.tokens("train").tolist() == wanted


def test_images_on_a_full_disk_are_a_sentence(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        images=np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8),
        labels=np.arange(40) % 2,
    )
    data = Data(train=Source(npz=str(tmp_path / "a.npz")))
    with full_disk(500), pytest.raises(TrimtabError, match="cannot be written"):
        prepare_images(data, tmp_path / "run" / "data")
    assert not list((tmp_path / "run").iterdir())


def test_where_nobody_may_write_is_a_sentence(data, tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrimtabError, match="cannot be written: Not a directory") as caught:
        prepare(data(50), tmp_path / "file" / "data", tokenizer=tokenizer, vocabulary=None)
    assert caught.value.where == str(tmp_path / "file")


def test_foreign_names_in_a_prepared_folder_do_not_matter_and_stay(data, tokenizer, tmp_path):
    folder = tmp_path / "data"
    asked = data(50)
    prepare(asked, folder, tokenizer=tokenizer, vocabulary=None)
    (folder / "notes.txt").write_text("mine")
    (folder / "train.tokens.backup").mkdir()
    (folder / "train.tokens.backup" / "x").write_text("mine too")
    prepare(asked, folder, tokenizer=tokenizer, vocabulary=None)
    changed = prepare(data(60), folder, tokenizer=tokenizer, vocabulary=None)
    assert sum(changed.record.documents.values()) == 60
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "train.tokens.backup" / "x").read_text() == "mine too"


def test_a_folder_of_somebody_else_is_not_replaced(data, tokenizer, tmp_path):
    """`--output .` in a project whose own `data/` lies there."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"holds 'corpus\.txt' and no prepared data") as caught:
        prepare(data(50), tmp_path / "data", tokenizer=tokenizer, vocabulary=None)
    assert "--output" in caught.value.remedy
    assert (tmp_path / "data" / "corpus.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / RECORD).write_text("{"),
        lambda folder: (folder / RECORD).write_text('{"made_by": "another version"}'),
        lambda folder: (folder / "train.tokens").write_bytes(b"ab"),
        lambda folder: (folder / "test.tokens").unlink(),
    ],
    ids=["cut", "version", "short", "missing"],
)
def test_what_is_damaged_or_of_another_version_is_prepared_anew(data, tokenizer, tmp_path, damage):
    asked = data(50)
    first = prepare(asked, tmp_path / "data", tokenizer=tokenizer, vocabulary=None)
    damage(tmp_path / "data")
    again = prepare(asked, tmp_path / "data", tokenizer=tokenizer, vocabulary=None)
    assert again.record == first.record
    assert len(again.tokens("train")) == first.record.tokens["train"]
