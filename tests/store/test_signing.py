"""Anything but the very bytes that were signed is refused, and the refusal names the file."""

import base64
import json
import os
import stat

import pytest

from trimtab.spec.artifact import SIGNATURE, file_digest
from trimtab.spec.errors import IntegrityError, TrimtabError
from trimtab.store import signing


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def signed(make_model, home):
    folder = make_model()
    (folder / "sub").mkdir()
    (folder / "sub" / "more.txt").write_text("more")
    signing.sign(folder, home)
    return folder


def test_an_unchanged_folder_is_what_was_signed(signed, home):
    entries = signing.verify(signed, home)
    assert set(entries) == {"config.json", "tokenizer.json", "LICENSE", "model.safetensors", "sub/more.txt"}
    assert entries["model.safetensors"] == file_digest(signed / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "LICENSE", "sub/more.txt"])
def test_one_changed_bit_is_refused_and_named(signed, home, name):
    data = bytearray((signed / name).read_bytes())
    data[-1] ^= 1
    (signed / name).write_bytes(data)
    with pytest.raises(IntegrityError, match="changed") as caught:
        signing.verify(signed, home)
    assert caught.value.where == str(signed / name)


@pytest.mark.parametrize(
    "name", ["added.json", "sub/added", ".gitattributes", ".git/hooks/x", "sub/model.sig"]
)
def test_an_added_file_is_refused_and_named(signed, home, name):
    (signed / name).parent.mkdir(parents=True, exist_ok=True)
    (signed / name).write_text("x")
    with pytest.raises(IntegrityError, match="added") as caught:
        signing.verify(signed, home)
    assert caught.value.where == str(signed / name)


def test_a_missing_file_is_refused_and_named(signed, home):
    (signed / "LICENSE").unlink()
    with pytest.raises(IntegrityError, match="missing") as caught:
        signing.verify(signed, home)
    assert caught.value.where == str(signed / "LICENSE")


def test_a_link_in_place_of_a_file_is_refused(signed, home, tmp_path):
    moved = tmp_path / "elsewhere"
    (signed / "LICENSE").rename(moved)
    (signed / "LICENSE").symlink_to(moved)
    with pytest.raises(IntegrityError, match="link"):
        signing.verify(signed, home)


def test_a_pipe_is_refused_without_waiting_for_it(signed, home):
    os.mkfifo(signed / "pipe")
    with pytest.raises(IntegrityError, match="special"):
        signing.verify(signed, home)


def test_an_unsigned_folder_is_refused(make_model, home):
    with pytest.raises(IntegrityError, match="not signed"):
        signing.verify(make_model(), home)


def test_a_forged_folder_signed_by_another_key_is_refused(signed, home, tmp_path):
    (signed / "config.json").write_text('{"evil": true}')
    other = tmp_path / "other"
    other.mkdir()
    signing.sign(signed, other)
    with pytest.raises(IntegrityError, match="this home's key"):
        signing.verify(signed, home)


def test_a_list_edited_to_fit_the_changed_file_is_refused(signed, home):
    """The digests inside the signature are adjusted, the signature itself cannot be."""
    (signed / "LICENSE").write_text("other")
    bundle = json.loads((signed / SIGNATURE).read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    for resource in statement["predicate"]["resources"]:
        resource["digest"] = file_digest(signed / resource["name"])
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (signed / SIGNATURE).write_text(json.dumps(bundle))
    with pytest.raises(IntegrityError, match="this home's key"):
        signing.verify(signed, home)


def test_a_public_key_put_there_by_somebody_does_not_decide(signed, home, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (signed / "config.json").write_text('{"evil": true}')
    signing.sign(signed, other)
    (home / "keys" / "signing.pub").write_bytes((other / "keys" / "signing.pub").read_bytes())
    with pytest.raises(IntegrityError):
        signing.verify(signed, home)


@pytest.mark.parametrize(
    "mangled", [b"", b"{}", b"[]", b"\xff", b"null", b'{"dsseEnvelope": {"payload": "!"}}', b"[" * 100_000]
)
def test_a_mangled_signature_is_a_sentence_not_a_traceback(signed, home, mangled):
    (signed / SIGNATURE).write_bytes(mangled)
    with pytest.raises(IntegrityError) as caught:
        signing.verify(signed, home)
    assert caught.value.where == str(signed / SIGNATURE)


def test_the_private_key_is_for_its_owner_only(signed, home):
    key = home / "keys" / "signing.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in key.read_bytes()
    key.chmod(0o644)
    with pytest.raises(TrimtabError, match="read by others"):
        signing.verify(signed, home)
