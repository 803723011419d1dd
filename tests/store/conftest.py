"""Small model folders, made by hand: enough of a model for the store, which never loads one."""

import json
import struct
from pathlib import Path

import pytest

from trimtab.store.store import Store


@pytest.fixture(scope="session")
def write_weights():
    """`write_weights(path, data)` writes a safetensors file of one uint8 tensor."""

    def write(path: Path, data: bytes, name: str = "w") -> None:
        header = json.dumps(
            {name: {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}
        ).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + data)

    return write


@pytest.fixture
def make_model(tmp_path, write_weights):
    """`make_model(name, weights)` writes a model folder and returns it."""

    def make(name: str = "model", data: bytes = b"weights") -> Path:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "LICENSE").write_text("Apache-2.0")
        write_weights(folder / "model.safetensors", data)
        return folder

    return make


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")
