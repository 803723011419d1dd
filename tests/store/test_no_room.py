"""No room and no right in the store: a sentence that names what could not be written, and nothing half there."""

import errno
import os
import shutil
import sqlite3

import pytest

from trimtab.spec.errors import TrimtabError
from trimtab.store.database import Database
from trimtab.store.durable import check_writable, refusal, writing_to
from trimtab.store.store import Store


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG])
def test_refusals_of_the_system_are_told_from_other_faults(number):
    words = os.strerror(number)
    assert refusal(OSError(number, words)).errno == number
    # As safetensors, written in Rust, tells of one.
    assert (
        refusal(ValueError(f"Error while serializing: I/O error: {words} (os error {number})")).errno
        == number
    )
    assert refusal(OSError(errno.ECHILD, "")) is None
    assert refusal(ValueError("(os error 9999)")) is None
    assert refusal(TrimtabError(f"told already (os error {number})")) is None


def test_other_faults_pass(tmp_path):
    with pytest.raises(KeyError), writing_to(tmp_path):
        raise KeyError


def test_a_copy_names_the_file_that_was_to_be_written(tmp_path, make_model, monkeypatch):
    store, model = Store(tmp_path / "home"), make_model()

    def full(source, target, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(TrimtabError, match="No space left on device") as caught:
            store.import_folder(model, "it")
    assert caught.value.where.startswith(str(tmp_path / "home"))
    assert "Nothing was changed" in caught.value.remedy
    assert store.versions() == []
    assert store.import_folder(model, "it").version == 1


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_READONLY])
def test_a_catalogue_without_room_is_not_told_to_be_moved_away(tmp_path, code):
    database = Database(tmp_path)
    error = sqlite3.OperationalError("no.")
    error.sqlite_errorcode = code
    with pytest.raises(TrimtabError, match="the catalogue cannot be written") as caught, database.reading():
        raise error
    assert "Free space" in caught.value.remedy
    assert "move it away" not in caught.value.remedy


def test_a_place_is_tried_without_being_made(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(TrimtabError, match="Not a directory"):
        check_writable(tmp_path / "file" / "b")


def test_foreign_names_in_the_store_stay(tmp_path, make_model):
    store = Store(tmp_path / "home")
    store.import_folder(make_model(), "it")
    foreign = [
        tmp_path / "home" / root / name
        for root in ("artifacts", "records")
        for name in (".DS_Store", "backup")
    ]
    for path in foreign:
        path.mkdir(parents=True)
    store.remove("it@1")
    assert [path for path in foreign if not path.exists()] == []
