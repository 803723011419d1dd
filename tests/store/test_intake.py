"""What is refused at the door, by name; what comes along."""

import json
import os
import pickle
import zipfile
from pathlib import PurePosixPath

import pytest

from trimtab.spec.errors import ModelError
from trimtab.store.intake import MAX_FILE_BYTES, admit


def test_what_decides_an_answer_comes_along_and_nothing_else(make_model):
    folder = make_model()
    for name in (".gitattributes", "model.sig", "NOTICE", "chat_template.jinja", "generation_config.json"):
        (folder / name).write_text("{}")
    for name in ("README.md", "trainer_state.json", "consolidated.safetensors", "adapter_model.safetensors"):
        (folder / name).write_text("x")
    for name in (".git/HEAD", "original/consolidated.00.pth", "onnx/model.onnx", "checkpoint-1/optimizer.pt"):
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(b"PK\x03\x04")
    assert {str(name) for name in admit(folder)} == {
        "LICENSE",
        "NOTICE",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    }


def test_json_as_python_writes_it_is_taken_and_a_bystander_is_not_read(make_model):
    folder = make_model()
    (folder / "trainer_state.json").write_text('{"loss": NaN, "broken": ')
    (folder / "config.json").write_text('{"model_type": "x", "a": Infinity, "b": NaN}')
    assert PurePosixPath("config.json") in admit(folder)


def test_no_folder_and_no_config(make_model, tmp_path):
    with pytest.raises(ModelError, match="no such folder"):
        admit(tmp_path / "missing")
    folder = make_model()
    with pytest.raises(ModelError, match="not a folder"):
        admit(folder / "config.json")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        admit(folder)


PICKLED = ["pytorch_model.bin", "model.pt", "optimizer.PTH", "training_args.bin", "m.ckpt", "a.pkl", "e.npy"]


@pytest.mark.parametrize("name", PICKLED)
def test_formats_that_run_code_are_refused_by_type_with_one_remedy(make_model, name):
    folder = make_model()
    (folder / name).write_bytes(b"harmless")
    with pytest.raises(ModelError, match="pickle") as caught:
        admit(folder)
    assert caught.value.where == str(folder / name)
    assert caught.value.remedy == "Delete the file: the weights are there as safetensors."
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="Convert the weights to safetensors"):
        admit(folder)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_under_another_name_is_refused(make_model, protocol):
    folder = make_model()
    (folder / "NOTICE").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
    with pytest.raises(ModelError, match="pickle"):
        admit(folder)


def test_a_torch_archive_under_another_name_is_refused(make_model):
    folder = make_model()
    with zipfile.ZipFile(folder / "model.safetensors", "w") as archive:
        archive.writestr("data.pkl", b"x")
    with pytest.raises(ModelError, match="pickle"):
        admit(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_remote_code_is_refused(make_model, name):
    folder = make_model()
    (folder / name).write_text(json.dumps({"auto_map": {"AutoModel": "evil--repo.Model"}}))
    with pytest.raises(ModelError, match="auto_map") as caught:
        admit(folder)
    assert caught.value.where == str(folder / name)


@pytest.mark.parametrize("name", ["modeling_evil.py", "libx.so"])
def test_code_is_refused(make_model, name):
    folder = make_model()
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


@pytest.mark.parametrize("kind", ["file", "folder", "broken", "loop", "itself"])
@pytest.mark.parametrize("name", ["vocab.txt", "bystander"])
def test_links_that_lead_nowhere_or_out_are_refused(make_model, tmp_path, kind, name):
    folder, outside = make_model(), tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (folder / "loop").symlink_to(name)
    target = {
        "file": outside / "secret",
        "folder": outside,
        "broken": tmp_path / "nowhere",
        "loop": "loop",
        "itself": ".",
    }[kind]
    (folder / name).symlink_to(target)
    (folder / "loop").unlink(missing_ok=kind == "never")
    if kind == "loop":
        (folder / "loop").symlink_to(name)
    with pytest.raises(ModelError, match="link") as caught:
        admit(folder)
    assert caught.value.where in {str(folder / name), str(folder / "loop")}


def test_weights_may_be_links_to_anywhere_as_they_are_checked_to_be_weights(make_model, tmp_path):
    folder = make_model()
    (folder / "model.safetensors").rename(tmp_path / "weights")
    (folder / "model.safetensors").symlink_to(tmp_path / "weights")
    assert admit(folder)[PurePosixPath("model.safetensors")] == tmp_path / "weights"
    (tmp_path / "weights").write_text("a secret that is no safetensors file")
    with pytest.raises(ModelError, match="not a safetensors file"):
        admit(folder)


def test_a_folder_that_a_download_filled_with_links_into_its_cache_is_taken(make_model, tmp_path):
    folder, blobs = make_model(), tmp_path / "hub" / "models--me--tiny" / "blobs"
    blobs.mkdir(parents=True)
    for path in list(folder.iterdir()):
        path.rename(blobs / f"sha-{path.name}")
        path.symlink_to(blobs / f"sha-{path.name}")
    assert admit(folder)[PurePosixPath("tokenizer.json")] == blobs / "sha-tokenizer.json"


def test_a_pipe_is_refused_without_waiting_for_it(make_model):
    folder = make_model()
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match="special"):
        admit(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("\udcff", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 50_000, "nested too deeply"),
        ("[1]", "not an object"),
        ('{"model_type": "a", "x": 1, "model_type": "b"}', "'model_type' twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' twice"),
        ('{"a": [' + "[]," * 300_000 + "[]]}", "more than 250000 values"),
        ("{" + " " * (17 << 20) + "}", "bytes"),
        ("", "not valid JSON"),
    ],
)
def test_broken_deep_doubled_and_huge_json_is_refused_in_a_sentence(make_model, text, says):
    folder = make_model()
    (folder / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelError, match=says) as caught:
        admit(folder)
    assert caught.value.where == str(folder / "config.json")


def test_an_oversized_tokenizer_is_refused_unread(make_model):
    folder = make_model()
    with (folder / "tokenizer.json").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelError, match="bytes"):
        admit(folder)


def sharded(folder, index):
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_come_along_as_the_index_names_them(make_model):
    folder = make_model()
    sharded(folder, {"metadata": {}, "weight_map": {"w": "part.safetensors"}})
    assert {"part.safetensors", "model.safetensors.index.json"} <= {str(name) for name in admit(folder)}


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"metadata": {}, "weight_map": {"a": "../../other.safetensors"}}, "outside of the folder"),
        ({"metadata": {}, "weight_map": {"a": "/etc/passwd"}}, "outside of the folder"),
        ({"metadata": {}, "weight_map": {"a": "pytorch_model.bin"}}, "no safetensors file"),
        (
            {"metadata": {}, "weight_map": {"w": "part.safetensors", "b": "other.safetensors"}},
            "1 of the 2 files",
        ),
        ({"metadata": {}, "weight_map": ["part.safetensors"]}, "no weight_map"),
        ({"metadata": {}, "weight_map": {"w": 3}}, "no weight_map"),
        ({"metadata": {}, "weight_map": {"w": ["part.safetensors"]}}, "no weight_map"),
        ({"metadata": {}, "weight_map": {}}, "no weight_map"),
        ({"metadata": {}}, "no weight_map"),
        ({"weight_map": {"w": "part.safetensors"}}, "no metadata"),
        ([], "not an object"),
    ],
)
def test_an_index_of_the_wrong_kind_is_refused(make_model, index, says):
    folder = make_model()
    sharded(folder, index)
    with pytest.raises(ModelError, match=says) as caught:
        admit(folder)
    assert caught.value.where == str(folder / "model.safetensors.index.json")


def test_a_missing_shard_is_to_be_fetched_and_not_converted(make_model):
    folder = make_model()
    index = {"metadata": {}, "weight_map": {"w": "part.safetensors", "b": "other.safetensors"}}
    sharded(folder, index)
    with pytest.raises(ModelError, match="Fetch what is missing"):
        admit(folder)


def test_a_tensor_in_two_shards_is_refused(make_model):
    folder = make_model()
    sharded(folder, {"metadata": {}, "weight_map": {"w": "part.safetensors", "v": "more.safetensors"}})
    (folder / "more.safetensors").write_bytes((folder / "part.safetensors").read_bytes())
    with pytest.raises(ModelError, match="'w' is in another file"):
        admit(folder)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["adapter_model.safetensors"], "Fetch that|not what transformers loads"),
        (["model-00001-of-00002.safetensors"], "Fetch model.safetensors.index.json"),
        (["consolidated.safetensors"], "not what transformers loads"),
        (["tiny.gguf"], "not what transformers loads"),
        ([], "Convert the weights"),
    ],
)
def test_a_folder_without_weights_is_told_what_to_do(make_model, names, says):
    folder = make_model()
    (folder / "model.safetensors").unlink()
    for name in names:
        (folder / name).write_bytes(b"x")
    with pytest.raises(ModelError, match=says):
        admit(folder)


def test_an_adapter_alone_is_called_one(make_model):
    folder = make_model()
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ModelError, match="an adapter"):
        admit(folder)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantized_folders_are_refused_by_their_config(make_model, key):
    folder = make_model()
    (folder / "config.json").write_text(json.dumps({key: {"bits": 4}}))
    with pytest.raises(ModelError, match="quantized already"):
        admit(folder)


@pytest.mark.parametrize(
    "name", ["q_proj.qweight", "q_proj.weight_scale_inv", "q.weight.absmax", "q.weight_packed"]
)
def test_quantized_folders_are_refused_by_their_tensors(make_model, write_weights, name):
    folder = make_model()
    write_weights(folder / "model.safetensors", b"1234", name=name)
    with pytest.raises(ModelError, match="quantized already"):
        admit(folder)


def test_a_model_type_is_a_word(make_model):
    folder = make_model()
    (folder / "config.json").write_text('{"model_type": ["llama"]}')
    with pytest.raises(ModelError, match="model_type"):
        admit(folder)


def test_weights_under_another_name_by_the_config_are_refused(make_model):
    folder = make_model()
    (folder / "config.json").write_text('{"transformers_weights": "other.safetensors"}')
    with pytest.raises(ModelError, match="transformers_weights"):
        admit(folder)


def test_a_file_that_may_not_be_read_is_named(make_model, monkeypatch):
    folder = make_model()
    real = type(folder).open

    def refuse(path, *arguments, **more):
        if path.name == "tokenizer.json":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    monkeypatch.setattr(type(folder), "open", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied") as caught:
        admit(folder)
    assert caught.value.where == str(folder / "tokenizer.json")


@pytest.mark.parametrize("name", ["passport.json", "serving.json"])
def test_a_record_of_ours_must_be_one(make_model, name):
    folder = make_model()
    (folder / name).write_text('{"unknown": 1}')
    with pytest.raises(ModelError, match="no valid") as caught:
        admit(folder)
    assert caught.value.where.endswith(name)
