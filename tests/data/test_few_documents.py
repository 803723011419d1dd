"""One or few documents: divided so that every split has its own, without overlap; or told."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.prepare import prepare
from trimtab.data.sources import cut_at_words, documents
from trimtab.data.splits import SPLITS, Splits
from trimtab.spec.errors import DataError
from trimtab.spec.recipe_data import Data, Source

WORDS = " ".join(f"word-{n}" for n in range(20_000))


def by_split(data):
    splits = Splits(data)
    return {split: list(splits.documents(split)) for split in SPLITS}


def written(path, text):
    path.write_text(text)
    return str(path)


@given(st.text(alphabet="ab ", max_size=300), st.integers(1, 30))
def test_long_lines_are_cut_before_a_blank_and_pieces_are_the_text(text, size):
    pieces = list(cut_at_words(text, size))
    assert "".join(pieces) == text
    assert all(size <= len(piece) <= 2 * size for piece in pieces[:-1])
    for piece, after in pairwise(pieces):
        assert after.startswith(" ") or len(piece) == size


@pytest.mark.parametrize(
    "text", [WORDS, "字" * 60_000, "\n".join([WORDS[:50_000], WORDS[50_000:], ""])], ids=["one", "zh", "two"]
)
def test_a_corpus_in_one_line_is_divided_over_all_splits(tmp_path, text):
    found = by_split(Data(train=Source(text=written(tmp_path / "a.txt", text))))
    sizes = {split: sum(len(document.text) for document in found[split]) for split in SPLITS}
    assert sum(sizes.values()) == len(text)
    assert 0.03 * len(text) < sizes["test"] < 0.2 * len(text)
    assert 0 < sizes["validation"] < 0.12 * len(text)
    names = [document.name for split in SPLITS for document in found[split]]
    assert len(names) == len(set(names))
    ends = [document for split in SPLITS for document in found[split] if document.ends]
    assert len(ends) == 1


@pytest.mark.parametrize("count", [1, 2, 20])
def test_few_rows_of_long_text_are_divided_as_a_text_file_is(write_lines, tmp_path, tokenizer, count):
    rows = [{"t": f"{n} " + WORDS.replace("-", f"-{n}-")} for n in range(count)]
    train = Source(jsonl=write_lines("a.jsonl", rows), text="t")
    found = by_split(Data(train=train))
    assert all(found.values())
    # Every row ends once, in whichever split its last piece is.
    assert sum(document.ends for split in SPLITS for document in found[split]) == count
    prepared = prepare(Data(train=train), tmp_path / "p", tokenizer=tokenizer, vocabulary=None)
    assert prepared.record.overlap == 0
    # What is named is taken as it is.
    whole = by_split(Data(train=train, validation=train, test=train))
    assert {split: len(whole[split]) for split in SPLITS} == dict.fromkeys(SPLITS, count)


def test_many_rows_stay_whole(write_lines):
    rows = [{"t": WORDS[:5000] + str(n)} for n in range(40)]
    found = by_split(Data(train=Source(jsonl=write_lines("a.jsonl", rows), text="t")))
    assert sorted(d.text for split in SPLITS for d in found[split]) == sorted(row["t"] for row in rows)


@pytest.mark.parametrize("count", range(3, 30))
def test_of_three_documents_or_more_every_split_has_one(write_lines, count):
    rows = [{"m": [{"role": "user", "content": f"chat {n}"}]} for n in range(count)]
    found = by_split(Data(train=Source(jsonl=write_lines("a.jsonl", rows), messages="m")))
    assert all(found.values())
    assert sum(map(len, found.values())) == count
    assert len(found["train"]) >= len(found["test"])
    assert found == by_split(Data(train=Source(jsonl=write_lines("a.jsonl", rows), messages="m")))


@pytest.mark.parametrize("name", [f"{letter}.txt" for letter in "abcdefghijklmnopqrstuvwxyz"])
def test_a_document_that_is_alone_is_trained_on(tmp_path, tokenizer, name):
    """Whatever its name's hash says: a named source is not told to be none."""
    data = Data(train=Source(text=written(tmp_path / name, "def f():\n    return 1\n")))
    prepared = prepare(data, tmp_path / "p", tokenizer=tokenizer, vocabulary=None)
    assert prepared.record.documents == {"train": 1, "validation": 0, "test": 0}
    with pytest.raises(DataError, match="no test split: there is no text for it") as caught:
        prepared.windows("test", 8)
    assert "or give more text" in caught.value.remedy


def test_samples_with_labels_stay_as_they_fall(write_lines):
    rows = [{"t": WORDS[:9000] + str(n), "l": n % 2} for n in range(4)]
    found = by_split(Data(train=Source(jsonl=write_lines("a.jsonl", rows), text="t", label="l")))
    assert sum(map(len, found.values())) == 4


def test_a_blank_last_piece_does_not_take_the_end_along(tmp_path):
    text = "".join(f"line {n} of the book\n" for n in range(100)) + "\n" * 4000
    found = list(documents(Source(text=written(tmp_path / "a.txt", text))))
    assert found[-1].ends
    assert found[-1].text.strip()


def test_text_that_is_in_train_and_test_is_still_found(write_lines, tmp_path, tokenizer):
    """Also where it is one row that is divided."""
    poem = "".join(f"line {n} of a poem\n" for n in range(300))
    row = json.dumps({"t": poem * 5})
    data = Data(train=Source(jsonl=written(tmp_path / "a.jsonl", row + "\n"), text="t"))
    with pytest.raises(DataError, match="are in the training data too"):
        prepare(data, tmp_path / "p", tokenizer=tokenizer, vocabulary=None)
