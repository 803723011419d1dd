"""The tokenizer's edges: where it is read from, and each id's bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec.errors import ModelError
from trimtab.text.tokenizer import Tokenizer


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="Not a tokenizer"):
        Tokenizer.load(tmp_path)


@given(st.text(max_size=60))
def test_bytes_round_trip(text):
    tokenizer = Tokenizer.of_bytes()
    ids = tokenizer.encode(text)
    assert ids == list(tokenizer.encode_many([text])[0])
    assert b"".join(tokenizer.pieces[token] for token in ids) == text.encode()
    assert tokenizer.decode(ids) == text


def test_unknown_ids_add_nothing():
    tokenizer = Tokenizer.of_bytes()
    assert tokenizer.vocabulary_size == 256
    assert [tokenizer.pieces[token] for token in (-1, 256, 2**40)] == [b"", b"", b""]
