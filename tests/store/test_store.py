"""Publishing, naming, reading, removing: what goes in comes out the same, or does not come out."""

import json
import stat
from pathlib import Path

import pytest

from trimtab.spec.artifact import (
    PASSPORT,
    SERVING,
    SIGNATURE,
    content_digest,
    file_digest,
    files,
    manifest_digest,
)
from trimtab.spec.errors import (
    IntegrityError,
    ModelError,
    NotFoundError,
    RefusedError,
    TrimtabError,
    UsageError,
)
from trimtab.store.store import Store


def test_what_goes_in_comes_out(store, make_model):
    folder = make_model(data=b"abc")
    version = store.publish(folder, "bot", aliases=("prod", "blue"))
    assert (version.name, version.version, version.aliases) == ("bot", 1, ("blue", "prod"))
    with store.open("bot") as opened:
        for path in folder.iterdir():
            assert (opened / path.name).read_bytes() == path.read_bytes()
        assert version.content_digest == content_digest(opened)
        whole = {str(file): file_digest(opened / file) for file in files(opened) if str(file) != SIGNATURE}
        assert version.version_digest == manifest_digest(whole)
        assert version.bytes == sum(path.stat().st_size for path in opened.iterdir())


def test_the_source_may_change_afterwards(store, make_model):
    folder = make_model(data=b"abc")
    store.publish(folder, "bot")
    (folder / "config.json").write_text("{}")
    assert "config.json" in store.verify("bot")


def test_the_same_files_are_the_same_version_and_other_files_the_next(store, make_model):
    first = store.publish(make_model(data=b"1"), "bot")
    assert store.publish(make_model(data=b"1"), "bot") == first
    assert store.publish(make_model(data=b"2"), "bot").version == 2
    assert store.publish(make_model(data=b"1"), "bot").version == 3
    assert store.publish(make_model(data=b"1"), "other").version == 1


def test_serving_settings_change_the_version_but_not_the_content(store, make_model):
    first = store.publish(make_model(), "bot")
    (make_model() / SERVING).write_text('{"engine": "mock"}')
    second = store.publish(make_model(), "bot")
    assert second.version == 2
    assert second.content_digest == first.content_digest
    assert second.version_digest != first.version_digest


def test_references(store, make_model):
    store.publish(make_model(data=b"1"), "bot", aliases=("prod",))
    store.publish(make_model(data=b"2"), "bot")
    assert store.resolve("bot").version == 2
    assert store.resolve("bot@1").version == 1
    assert store.resolve("bot:prod").version == 1
    with pytest.raises(NotFoundError, match=r"no model is named 'other'"):
        store.resolve("other")
    with pytest.raises(NotFoundError, match=r"bot@1, bot@2, bot:prod"):
        store.resolve("bot@3")
    with pytest.raises(NotFoundError, match=r"bot:prod"):
        store.resolve("bot:prd")


def test_an_alias_moves_and_the_versions_stay(store, make_model):
    store.publish(make_model(data=b"1"), "bot", aliases=("prod",))
    second = store.publish(make_model(data=b"2"), "bot")
    with store.open("bot:prod") as before:
        assert store.alias("bot", "prod", 2).aliases == ("prod",)
        assert (before / "config.json").is_file()
    assert store.resolve("bot:prod").version_digest == second.version_digest
    assert store.resolve("bot@1").aliases == ()
    store.alias("bot", "prod", 1)
    assert store.resolve("bot:prod").version == 1
    with pytest.raises(NotFoundError):
        store.alias("bot", "prod", 9)
    assert store.resolve("bot:prod").version == 1
    store.drop_alias("bot", "prod")
    with pytest.raises(NotFoundError):
        store.drop_alias("bot", "prod")


def test_a_changed_byte_refuses_to_open_and_names_the_file(store, make_model):
    store.publish(make_model(), "bot")
    with store.open("bot") as folder:
        weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors.*changed"), store.open("bot"):
        pytest.fail("it was opened")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        store.verify("bot@1")


def test_another_signed_version_in_its_place_is_refused(store, make_model):
    """A roll back by hand: the old folder is validly signed, but is not this version."""
    old, new = (store.publish(make_model(data=data), "bot") for data in (b"old", b"new"))
    artifacts = store.home / "artifacts"
    (artifacts / new.version_digest).rename(store.home / "away")
    (artifacts / old.version_digest).rename(artifacts / new.version_digest)
    with pytest.raises(IntegrityError, match=r"does not hold bot@2"):
        store.verify("bot@2")


def test_publishing_again_heals_a_damaged_version(store, make_model):
    version = store.publish(make_model(), "bot")
    (store.home / "artifacts" / version.version_digest / "LICENSE").write_text("changed")
    assert store.publish(make_model(), "bot") == version
    assert store.verify("bot@1")


def test_removal(store, make_model):
    first = store.publish(make_model(data=b"1"), "bot", aliases=("prod",))
    store.publish(make_model(data=b"1"), "twin")
    store.publish(make_model(data=b"2"), "bot")
    with pytest.raises(RefusedError, match="bot:prod"):
        store.remove("bot@1")
    store.drop_alias("bot", "prod")
    store.remove("bot@1")
    assert [v.reference for v in store.versions()] == ["bot@2", "twin@1"]
    assert store.verify("twin")  # the same files, still needed
    store.remove("twin")
    assert not (store.home / "artifacts" / first.version_digest).exists()
    store.remove("bot")
    assert store.publish(make_model(data=b"3"), "bot").version == 3  # a number is never given twice


def test_records_stay_beside_the_version(store, make_model, tmp_path):
    version = store.publish(make_model(), "bot")
    (tmp_path / "r.html").write_text("<p>1</p>")
    store.attach("bot", "report.html", tmp_path / "r.html")
    store.attach("bot", "copy.html", tmp_path / "r.html")
    assert store.record("bot@1", "report.html").read_text() == "<p>1</p>"
    assert store.record("bot@1", "report.html").name == "report.html"
    assert store.records("bot") == ["copy.html", "report.html"]
    (tmp_path / "r.html").write_text("<p>2</p>")
    store.attach("bot", "report.html", tmp_path / "r.html")
    assert store.record("bot", "report.html").read_text() == "<p>2</p>"
    assert store.record("bot", "copy.html").read_text() == "<p>1</p>"
    assert store.resolve("bot") == version
    with pytest.raises(NotFoundError, match="It has: copy"):
        store.record("bot", "verdict.json")
    with pytest.raises(UsageError):
        store.attach("bot", "../escape", tmp_path / "r.html")
    store.record("bot", "report.html").write_text("forged")
    with pytest.raises(IntegrityError, match=r"report\.html"):
        store.record("bot", "report.html")
    store.remove("bot")
    assert list((store.home / "records").iterdir()) == []


def test_export_gives_a_checked_copy(store, make_model, tmp_path):
    store.publish(make_model(), "bot")
    out = tmp_path / "a b" / "out"
    store.export("bot", out)
    assert "LICENSE" in store.verify_folder(out)
    with pytest.raises(UsageError, match="taken"):
        store.export("bot", out)
    (out / "LICENSE").write_text("x")
    with pytest.raises(IntegrityError, match="LICENSE"):
        store.verify_folder(out)
    with store.open("bot") as folder:
        (folder / "LICENSE").write_text("x")
    with pytest.raises(IntegrityError):
        store.export("bot", tmp_path / "second")
    assert not (tmp_path / "second").exists()
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"]


def test_import_writes_a_passport_and_twice_is_once(store, make_model):
    version = store.import_folder(make_model(data=b"12345"), "bot")
    with store.open("bot") as folder:
        passport = json.loads((folder / PASSPORT).read_text())
    assert (passport["architecture"], passport["parameters"]) == ("LlamaForCausalLM", 5)
    assert store.import_folder(make_model(data=b"12345"), "bot") == version


def test_import_without_weights_is_refused(store, make_model):
    folder = make_model()
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        store.import_folder(folder, "bot")


@pytest.mark.parametrize("name", ["../up", "a/b", "A", "", ".hidden", "x" * 65, "a b", "a\n"])
def test_a_bad_name_leaves_nothing(store, make_model, name):
    with pytest.raises(UsageError):
        store.publish(make_model(), name)
    with pytest.raises(UsageError):
        store.publish(make_model(), "bot", aliases=(name,))
    assert_empty(store)


def test_a_failure_half_way_leaves_nothing(store, make_model, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(store.home / "scratch"))

    monkeypatch.setattr("trimtab.store.durable.shutil.copyfile", full)
    with pytest.raises(TrimtabError, match="No space left") as caught:
        store.publish(make_model(), "bot")
    assert "Free space" in str(caught.value)
    monkeypatch.undo()
    assert_empty(store)


def test_tenants_do_not_see_each_other(store, make_model):
    store.publish(make_model(), "bot", aliases=("prod",))
    other = Store(store.home, tenant="other")
    assert other.versions() == []
    with pytest.raises(NotFoundError):
        other.resolve("bot:prod")
    assert other.publish(make_model(), "bot").aliases == ()
    other.remove("bot")
    assert store.verify("bot")


def test_the_home_is_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "deep" / "home"))
    assert Store().home == tmp_path / "deep" / "home"
    assert stat.S_IMODE((tmp_path / "deep" / "home").stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="TRIMTAB_HOME"):
        Store(Path(tmp_path / "file" / "home"))


def assert_empty(store: Store) -> None:
    assert store.versions() == []
    for name in ("artifacts", "scratch", "records"):
        assert list((store.home / name).iterdir()) == []
