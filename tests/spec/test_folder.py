"""Which files a folder has, and what it is called."""

import os

import pytest

from trimtab.spec.errors import ModelError
from trimtab.spec.folder import listing, model_name, store_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de289a04d12100db370d81485cdf75e47ca", "Qwen3-0.6B"),
        ("hub/models--Qwen--Qwen3-0.6B/snapshots/c1899de289a04d12100db370d81485cdf75e47ca/", "Qwen3-0.6B"),
        ("hub/models--gpt2/snapshots/0123", "gpt2"),
        ("snapshots/0123", "0123"),
        ("./Tiny Model/", "Tiny Model"),
        ("a/./b/../c", "c"),
        ("a\nb\x1b[2J", "a b [2J"),
        ("Größe", "Größe"),
        ("/", "model"),
    ],
)
def test_a_folder_is_served_under_its_own_name(path, name):
    from pathlib import Path

    assert model_name(Path(path)) == name


def test_a_folder_given_as_a_dot_or_by_a_link_has_the_name_that_was_meant(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "mine").symlink_to("real")
    assert model_name(tmp_path / "mine") == "mine"
    monkeypatch.chdir(tmp_path / "real")
    assert model_name(type(tmp_path)(".")) == "real"


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Qwen3-0.6B", "qwen3-0.6b"),
        ("models--me--My Model/snapshots/0123", "my-model"),
        ("Größe", "gre"),
        ("...", "model"),
        ("x" * 80, "x" * 64),
    ],
)
def test_a_folders_name_in_the_store(tmp_path, folder, name):
    assert store_name(tmp_path / folder) == name


def test_hidden_files_and_folders_do_not_count_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "folder").mkdir()
    assert listing(tmp_path) == {"file": tmp_path / "file"}
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="special file"):
        listing(tmp_path)
