import hashlib

import msgspec
import pytest

from trimtab.spec import artifact
from trimtab.spec.artifact import Passport, content_digest, content_part, files, manifest, manifest_digest


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "nested").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "LICENSE", "nested/extra.txt"):
        (made / name).write_text(name)
    for name in (artifact.CARD, artifact.PASSPORT, artifact.SERVING, artifact.SIGNATURE):
        (made / name).write_text(name)
    return made


def test_the_content_digest_covers_what_decides_an_answer(folder):
    before = content_digest(folder)
    for record in (artifact.CARD, artifact.PASSPORT, artifact.SERVING, artifact.SIGNATURE):
        (folder / record).write_text("changed")
    assert content_digest(folder) == before
    for name in ("config.json", "model.safetensors", "tokenizer.json", "LICENSE", "nested/extra.txt"):
        was = (folder / name).read_text()
        (folder / name).write_text("changed")
        assert content_digest(folder) != before, name
        (folder / name).write_text(was)
    assert content_digest(folder) == before
    (folder / "new.txt").write_text("")
    assert content_digest(folder) != before


def test_the_version_manifest_covers_all_but_the_signature(folder):
    whole = manifest(folder, content_only=False)
    assert set(whole) == {str(name) for name in files(folder)} - {artifact.SIGNATURE}
    assert whole["nested/extra.txt"] == hashlib.sha256(b"nested/extra.txt").hexdigest()
    assert content_part(whole) == manifest(folder, content_only=True)


def test_a_renamed_file_is_another_content(folder):
    before = content_digest(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer2.json")
    assert content_digest(folder) != before
    assert manifest_digest({"a": "1", "b": "2"}) == manifest_digest({"b": "2", "a": "1"})


def test_links_are_not_followed(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    (folder / "link").symlink_to(secret)
    assert "link" not in {str(name) for name in files(folder)}


def test_companions_travel_and_nothing_else(folder, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    assert artifact.copy_files(folder, target, artifact.COMPANIONS) == ["LICENSE", "tokenizer.json"]
    assert sorted(path.name for path in target.iterdir()) == ["LICENSE", "tokenizer.json"]


def test_a_passport_comes_back():
    passport = Passport(name="a", architecture="llama", parameters=3, steps=("int8",))
    assert msgspec.json.decode(msgspec.json.encode(passport), type=Passport) == passport
