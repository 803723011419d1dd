import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.data.sources import cut_at_lines, documents
from trimtab.data.splits import SPLITS, split_documents, split_of
from trimtab.spec.errors import DataError
from trimtab.spec.recipe_data import Data, Source


@given(st.text(alphabet="ab\n\r", max_size=200), st.integers(1, 30))
def test_pieces_are_the_text_and_end_at_lines(text, size):
    pieces = list(cut_at_lines(text, size))
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") and len(piece) >= size for piece in pieces[:-1])


def test_standard_library_is_split_by_file_and_leaves_out_what_repeats():
    names = {split: {d.name for d in split_documents(Data(stdlib="python"), split)} for split in SPLITS}
    everything = set.union(*names.values())
    assert sum(map(len, names.values())) == len(everything) > 300
    assert len(names["train"]) > 5 * len(names["test"]) > 5 * len(names["validation"]) > 0
    assert not [
        n for n in everything if {"test", "encodings", "idle_test", "site-packages"} & set(n.split("/"))
    ]
    root = Path(sysconfig.get_paths()["stdlib"])
    assert all((root / name).is_file() for name in everything)
    # Pinned: a changed rule would move files between splits of models that exist already.
    assert [split_of(name) for name in ("ast.py", "os.py", "json/decoder.py")] == ["test", "train", "train"]


def test_a_named_split_is_taken_whole_and_the_rest_is_set_apart_from_train(write_lines):
    rows = [{"t": f"text number {n}"} for n in range(300)]
    train = Source(jsonl=write_lines("train.jsonl", rows), text="t")
    test = Source(jsonl=write_lines("test.jsonl", [{"t": "held out"}]), text="t")
    found = {split: list(split_documents(Data(train=train, test=test), split)) for split in SPLITS}
    assert [document.text for document in found["test"]] == ["held out"]
    assert len(found["train"]) + len(found["validation"]) == 300
    assert 0 < len(found["validation"]) < 40
    alone = {split: len(list(split_documents(Data(train=train), split))) for split in SPLITS}
    assert alone["train"] + alone["validation"] + alone["test"] == 300
    assert alone["test"] > 0
    assert not list(split_documents(Data(test=test), "train"))


def test_text_file_is_cut_into_pieces_and_ends_once(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {n} of the book\n" for n in range(2000)))
    found = list(documents(Source(text=str(path))))
    assert len(found) > 50
    assert "".join(document.text for document in found) == path.read_text()
    assert [document.ends for document in found] == [False] * (len(found) - 1) + [True]
    assert len({document.name for document in found}) == len(found)


@pytest.mark.parametrize(
    ("line", "where", "says"),
    [
        ('{"q": "x"', ":2", "not JSON"),
        ('{"q": "x"}', ":2", "no field 'a'"),
        ("[1]", ":2", "no field 'a'"),
        ('{"a": 3}', ":2 a", "not text"),
    ],
)
def test_malformed_lines_are_named(tmp_path, line, where, says):
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": "fine"}\n' + line + "\n")
    with pytest.raises(DataError, match=says) as caught:
        list(documents(Source(jsonl=str(path), text="a")))
    assert caught.value.where == f"{path}{where}"


@pytest.mark.parametrize("chat", ['[{"role": "user"}]', '"hello"', "[]", '[{"role": "user", "content": 3}]'])
def test_malformed_chats_are_named(tmp_path, chat):
    path = tmp_path / "chats.jsonl"
    path.write_text(f'\n{{"messages": {chat}}}\n')
    with pytest.raises(DataError) as caught:
        list(documents(Source(jsonl=str(path), messages="messages")))
    assert caught.value.where == f"{path}:2 messages"


@pytest.mark.parametrize("source", [Source(text="/nowhere.txt"), Source(jsonl="/nowhere.jsonl", text="t")])
def test_missing_files(source):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(documents(source))


def test_not_utf8(tmp_path):
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 3\)"):
        list(documents(Source(text=str(tmp_path / "latin.txt"))))
