import json
import os
import shutil

import msgspec
import pytest

from trimtab.spec import artifact
from trimtab.spec.artifact import (
    Passport,
    content_digest,
    content_part,
    deciding_files,
    files,
    manifest_digest,
)
from trimtab.spec.errors import ModelError

DECIDING = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "LICENSE")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    for name in (*DECIDING, artifact.CARD, artifact.PASSPORT, artifact.SERVING, artifact.SIGNATURE):
        (made / name).write_text(name)
    return made


def snapshot_of(folder, cache):
    """The same files as a Hugging Face cache keeps them: links into a folder of blobs."""
    links = cache / "models--me--tiny" / "snapshots" / "0123abcd"
    links.mkdir(parents=True)
    (cache / "models--me--tiny" / "blobs").mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(path, cache / "models--me--tiny" / "blobs" / str(number))
        (links / path.name).symlink_to(f"../../blobs/{number}")
    return links


def test_the_content_digest_covers_what_decides_an_answer_and_no_bystander(folder):
    before = content_digest(folder)
    assert list(deciding_files(folder)) == sorted(DECIDING)
    for name in DECIDING:
        was = (folder / name).read_text()
        (folder / name).write_text("changed")
        assert content_digest(folder) != before, name
        (folder / name).write_text(was)
    (folder / "original").mkdir()
    for name in (
        *(artifact.CARD, artifact.PASSPORT, artifact.SERVING, artifact.SIGNATURE),
        *(
            "trainer_state.json",
            "model.fp16.safetensors",
            "adapter_model.safetensors",
            "model.gguf",
            "notes.txt",
        ),
        *("consolidated.safetensors", "original/params.json", ".gitattributes", "onnx.onnx"),
    ):
        (folder / name).write_text("changed")
    assert content_digest(folder) == before


def test_a_snapshot_of_links_has_the_digest_of_its_files(folder, tmp_path):
    links = snapshot_of(folder, tmp_path / "cache")
    assert content_digest(links) == content_digest(folder)
    assert deciding_files(links)["config.json"].parent.name == "blobs"
    (tmp_path / "by-another-name").symlink_to(links)
    assert content_digest(tmp_path / "by-another-name") == content_digest(folder)


def test_two_snapshots_of_links_differ_as_their_files_do(folder, tmp_path):
    one = snapshot_of(folder, tmp_path / "one")
    (folder / "model.safetensors").write_text("other weights")
    two = snapshot_of(folder, tmp_path / "two")
    assert content_digest(one) != content_digest(two)


def test_a_link_whose_target_changes_in_place_is_another_content(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere.safetensors"
    (folder / "model.safetensors").rename(elsewhere)
    (folder / "model.safetensors").symlink_to(elsewhere)
    before = content_digest(folder)
    was = elsewhere.stat()
    elsewhere.write_text("MODEL.SAFETENSORS")  # as long as before, in the same inode, and dated as before
    os.utime(elsewhere, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert content_digest(folder) != before


def test_a_renamed_file_is_another_content(folder):
    before = content_digest(folder)
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    assert content_digest(folder) != before
    assert manifest_digest({"a": "1", "b": "2"}) == manifest_digest({"b": "2", "a": "1"})


def test_nothing_has_no_digest(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("no model")
    with pytest.raises(ModelError, match="no file of a model"):
        content_digest(tmp_path / "empty")
    with pytest.raises(ValueError, match="empty manifest"):
        manifest_digest({})


def test_an_index_beside_a_whole_file_does_not_count(folder):
    """Stock transformers loads the whole file then, so shards and index may say what they like."""
    before = content_digest(folder)
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / artifact.INDEX).write_text(json.dumps(index))
    assert content_digest(folder) == before
    (folder / "model-00001-of-00001.safetensors").write_text("stale")
    assert content_digest(folder) == before
    (folder / artifact.WEIGHTS).unlink()
    assert {artifact.INDEX, "model-00001-of-00001.safetensors"} <= set(deciding_files(folder))
    assert content_digest(folder) != before


def test_the_content_part_of_a_manifest_leaves_out_our_records():
    whole = dict.fromkeys((*DECIDING, artifact.CARD, artifact.PASSPORT, artifact.SERVING), "0")
    assert set(content_part(whole)) == set(DECIDING)


def test_links_are_not_followed_in_what_we_made(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    (folder / "link").symlink_to(secret)
    assert "link" not in {str(name) for name in files(folder)}


def test_companions_travel_and_nothing_else(folder, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    expected = ["LICENSE", "generation_config.json", "tokenizer.json"]
    assert artifact.copy_files(folder, target, artifact.COMPANIONS) == expected
    assert sorted(path.name for path in target.iterdir()) == expected


def test_a_passport_comes_back():
    passport = Passport(name="a", architecture="llama", parameters=3, steps=("int8",))
    assert msgspec.json.decode(msgspec.json.encode(passport), type=Passport) == passport
