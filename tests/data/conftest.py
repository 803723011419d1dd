import json

import pytest

from trimtab.data.tokenizer import train_bpe


@pytest.fixture
def write_lines(tmp_path):
    """`write_lines("a.jsonl", [{"text": "x"}])` → path."""

    def write(name, rows):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        return str(path)

    return write


@pytest.fixture
def tokenizer(tmp_path):
    """A byte-level tokenizer with a few merges."""
    return train_bpe(["the cat sat on the mat and the hat\n" * 5], 300, tmp_path / "tokenizer")
