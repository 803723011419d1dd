"""A tiny model and prepared data, made once a session, and jobs on them."""

import json
from types import SimpleNamespace

import pytest

from trimtab.data.prepare import prepare
from trimtab.models.create import create
from trimtab.parallel.ranks import Ranks
from trimtab.spec.architectures import Architecture
from trimtab.spec.recipe_data import Data, Source
from trimtab.training.job import TrainJob
from trimtab.training.loop import train

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "dogs",
    "ran",
    "over",
    "hills",
    "and",
    "rivers",
    "under",
    "skies",
]


def sentences(count, seed):
    import random

    chosen = random.Random(seed)
    return [" ".join(chosen.choice(WORDS) for _ in range(40)) for _ in range(count)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """`.model`, `.teacher`, `.data` folders."""
    root = tmp_path_factory.mktemp("tiny")
    path = root / "text.jsonl"
    path.write_text("\n".join(json.dumps({"t": text}) for text in sentences(200, 1)))
    data = Data(train=Source(jsonl=str(path), text="t"))
    prepared = prepare(data, root / "data", tokenizer=None, vocabulary=320)
    made = {}
    for name, layers, seed in (("model", 2, 0), ("teacher", 3, 5)):
        shape = Architecture(
            architecture="llama", layers=layers, hidden=32, heads=4, kv_heads=2, ffn=64, context=64
        )
        made[name] = create(shape, prepared.tokenizer_folder, root / name, seed)
    return SimpleNamespace(root=root, data=root / "data", **made)


@pytest.fixture
def make_job(tiny, tmp_path):
    """`make_job(tokens=…, …)` → TrainJob with small batches, float32, folders below tmp_path."""

    def make(**changes):
        settings = {
            "model": str(tiny.model),
            "data": str(tiny.data),
            "output": str(tmp_path / "output"),
            "tokens": 4 * 16 * 12,
            "batch": 4,
            "sequence_length": 16,
            "precision": "float32",
            "validation_points": 3,
        }
        return TrainJob(**settings | changes)

    return make


def train_here(job, *, on_event=None, wants_stop=lambda: False):
    """In this process, as a group of one."""
    return train(job, Ranks(), on_event or (lambda _: None), wants_stop)


@pytest.fixture
def here():
    return train_here


@pytest.fixture
def weights():
    from safetensors.torch import load_file

    return lambda folder: load_file(f"{folder}/model.safetensors")
