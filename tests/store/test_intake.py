"""What is refused at the door, by name; what comes along."""

import json
import os
import pickle
import zipfile
from pathlib import PurePosixPath

import pytest

from trimtab.spec.errors import ModelError
from trimtab.store.intake import admit


def test_everything_comes_along_but_hidden_files_and_old_signatures(make_model):
    folder = make_model()
    for name in (".gitattributes", "model.sig", "NOTICE", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_text("{}")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("x")
    (folder / "extra").mkdir()
    (folder / "extra" / "vocab.txt").write_text("x")
    assert {str(name) for name in admit(folder)} == {
        "LICENSE",
        "NOTICE",
        "chat_template.jinja",
        "config.json",
        "extra/vocab.txt",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_no_folder_and_no_config(make_model, tmp_path):
    with pytest.raises(ModelError, match="not a folder"):
        admit(tmp_path / "missing")
    folder = make_model()
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        admit(folder)


@pytest.mark.parametrize(
    "name",
    ["pytorch_model.bin", "model.pt", "x/optimizer.PTH", "training_args.bin", "m.ckpt", "a.pkl", "e.npy"],
)
def test_formats_that_run_code_are_refused_by_type(make_model, name):
    folder = make_model()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"harmless")
    with pytest.raises(ModelError, match="pickle") as caught:
        admit(folder)
    assert caught.value.where == name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_under_another_name_is_refused(make_model, protocol):
    folder = make_model()
    (folder / "notes.txt").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    with pytest.raises(ModelError, match="pickle"):
        admit(folder)


def test_a_torch_archive_under_another_name_is_refused(make_model):
    folder = make_model()
    with zipfile.ZipFile(folder / "model-2.safetensors", "w") as archive:
        archive.writestr("data.pkl", b"x")
    with pytest.raises(ModelError, match="pickle"):
        admit(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_remote_code_is_refused(make_model, name):
    folder = make_model()
    (folder / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil--repo.Model"}}))
    with pytest.raises(ModelError, match="auto_map") as caught:
        admit(folder)
    assert caught.value.where == name


@pytest.mark.parametrize("name", ["modeling_evil.py", "custom_generate/generate.py", "libx.so"])
def test_code_is_refused(make_model, name):
    folder = make_model()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("import os")
    with pytest.raises(ModelError, match="own code"):
        admit(folder)


def test_links_inside_a_snapshot_are_followed(make_model, tmp_path):
    """The layout of a downloaded snapshot: links into the sibling folder of blobs."""
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in make_model().iterdir():
        (blobs / f"sha-{path.name}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/sha-{path.name}")
    admitted = admit(snapshot)
    assert admitted[PurePosixPath("config.json")] == blobs / "sha-config.json"


@pytest.mark.parametrize("kind", ["file", "folder", "broken"])
def test_links_that_lead_out_are_refused(make_model, tmp_path, kind):
    folder, outside = make_model(), tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    target = {"file": outside / "secret", "folder": outside, "broken": tmp_path / "nowhere"}[kind]
    (folder / "vocab.txt").symlink_to(target)
    with pytest.raises(ModelError, match="link") as caught:
        admit(folder)
    assert caught.value.where == str(folder / "vocab.txt")


def test_a_pipe_is_refused_without_waiting_for_it(make_model):
    folder = make_model()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match="special"):
        admit(folder)


@pytest.mark.parametrize("text", ["{", "\udcff", "[" * 100_000])
def test_broken_json_is_refused(make_model, text):
    folder = make_model()
    (folder / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelError, match="not valid JSON"):
        admit(folder)


@pytest.mark.parametrize("shard", ["../../other.safetensors", "/etc/passwd", "model-2.safetensors"])
def test_an_index_may_name_only_what_is_there(make_model, shard):
    folder = make_model()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    assert PurePosixPath(index.name) in admit(folder)
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": shard}}))
    with pytest.raises(ModelError, match="not in the folder"):
        admit(folder)


@pytest.mark.parametrize("name", ["passport.json", "serving.json"])
def test_a_record_of_ours_must_be_one(make_model, name):
    folder = make_model()
    (folder / name).write_text('{"unknown": 1}')
    with pytest.raises(ModelError, match="no valid") as caught:
        admit(folder)
    assert caught.value.where.endswith(name)
