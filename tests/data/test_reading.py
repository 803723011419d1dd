"""What a text file may be, and what else it is told to be: with file, line and remedy."""

import gzip
import json

import pytest

from trimtab.data.prepare import prepare
from trimtab.data.sources import documents
from trimtab.spec.errors import DataError
from trimtab.spec.recipe_data import Data, Source

TEXT = "Größe\nand more\n"
ROWS = [json.dumps({"t": f"Größe {n}"}, ensure_ascii=False) for n in range(3)]


def source(path, kind):
    return Source(text=str(path)) if kind == "text" else Source(jsonl=str(path), text="t")


def body(kind):
    return TEXT if kind == "text" else "\n".join(ROWS) + "\n"


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, kind):
    path = tmp_path / "a"
    path.write_bytes(body(kind).encode("utf-8-sig"))
    (tmp_path / "b").write_bytes(body(kind).encode())
    found = [document.text for document in documents(source(path, kind))]
    assert found == [document.text for document in documents(source(tmp_path / "b", kind))]
    assert found[0].startswith("Größe")


@pytest.mark.parametrize("kind", ["text", "jsonl"])
@pytest.mark.parametrize(
    ("encode", "says", "remedy"),
    [
        (lambda text: text.encode("utf-16"), "is UTF-16 text, not UTF-8", "iconv -f UTF-16"),
        (lambda text: text.encode("utf-32"), "is UTF-32 text, not UTF-8", "iconv -f UTF-32"),
        (lambda text: gzip.compress(text.encode()), "compressed with gzip", "gunzip"),
        (lambda text: b"PK\x03\x04" + text.encode(), "a zip archive", "Unpack"),
        (lambda text: b"PAR1\x15\x04" + text.encode(), "a Parquet table", "JSON lines"),
    ],
    ids=["utf16", "utf32", "gzip", "zip", "parquet"],
)
def test_other_kinds_of_files_are_told_as_such(tmp_path, kind, encode, says, remedy):
    path = tmp_path / "data"
    path.write_bytes(encode(body(kind)))
    with pytest.raises(DataError, match=says) as caught:
        list(documents(source(path, kind)))
    assert caught.value.where == str(path)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("kind", "data", "where", "says"),
    [
        ("text", "ein\nzwei\ncaf\xe9\n".encode("latin-1"), "", r"not UTF-8 text \(byte 12, in line 3\)"),
        ("jsonl", b'{"t": "fine"}\n{"t": "caf\xe9"}\n', ":2", r"not UTF-8 text \(byte 10\)"),
        ("text", TEXT.encode("utf-16-le"), "", "holds a NUL byte"),
        ("jsonl", b'{"t": "a"}\n{"t": "a\x00b"}\n', ":2", r"holds a NUL byte \(byte 8\)"),
        ("jsonl", b"\xed\xa0\xbd\n", ":1", "not UTF-8 text"),
        ("jsonl", b'[\n {"t": "a"}\n]\n', ":1", "is not JSON"),
    ],
)
def test_what_is_no_text_is_told_with_file_line_and_remedy(tmp_path, kind, data, where, says):
    path = tmp_path / "data"
    path.write_bytes(data)
    with pytest.raises(DataError, match=says) as caught:
        list(documents(source(path, kind)))
    assert caught.value.where == f"{path}{where}"
    assert caught.value.remedy


HALF = '"cut \\ud83d"'


@pytest.mark.parametrize(
    ("row", "fields", "where"),
    [
        (f'{{"t": {HALF}}}', {"text": "t"}, "t"),
        (f'{{"t": "x", "l": {HALF}}}', {"text": "t", "label": "l"}, "l"),
        (f'{{"m": [{{"role": "user", "content": {HALF}}}]}}', {"messages": "m"}, "m[0].content"),
        (f'{{"m": [{{"role": {HALF}, "content": "x"}}]}}', {"messages": "m"}, "m[0].role"),
        (
            f'{{"m": [{{"role": "user", "content": [{{"type": "text", "text": {HALF}}}]}}]}}',
            {"messages": "m"},
            "m[0].content[0].text",
        ),
        (
            f'{{"m": [{{"role": "user", "content": "x"}}], "tools": [{{"function": {HALF}}}]}}',
            {"messages": "m"},
            "tools[0].function",
        ),
    ],
)
def test_half_of_a_surrogate_pair_is_told_with_file_line_and_field(tmp_path, row, fields, where):
    path = tmp_path / "data.jsonl"
    path.write_text("\n" + row + "\n")
    with pytest.raises(DataError, match=r"is \\ud83d, half of a character") as caught:
        list(documents(Source(jsonl=str(path), **fields)))
    assert caught.value.where == f"{path}:2 {where}"


@pytest.mark.parametrize("name", ["gr\udcf6.txt", "cut \ud83d.txt"])
def test_a_file_name_that_is_not_utf8_is_a_sentence(tmp_path, tokenizer, name):
    data = Data(test=Source.model_construct(text=str(tmp_path / name)))
    if "\udcf6" in name:
        (tmp_path / name).write_text(TEXT)
    with pytest.raises(DataError, match="name is not UTF-8"):
        prepare(data, tmp_path / "p", tokenizer=tokenizer, vocabulary=None)


def test_an_image_file_name_that_is_not_utf8_is_a_sentence(tmp_path):
    from trimtab.data.prepare_images import prepare_images

    for kind in "ab":
        (tmp_path / "images" / kind).mkdir(parents=True)
        (tmp_path / "images" / kind / "gr\udcf6.png").write_bytes(b"")
    with pytest.raises(DataError, match="name is not UTF-8"):
        prepare_images(Data(train=Source(images=str(tmp_path / "images"))), tmp_path / "p")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_blank_lines_and_a_last_line_without_one(tmp_path, end, last):
    rows = [ROWS[0], "", ROWS[1], "   ", '{"t": "  "}', ROWS[2]]
    (tmp_path / "a.jsonl").write_bytes((end.join(rows) + end * last).encode())
    found = list(documents(Source(jsonl=str(tmp_path / "a.jsonl"), text="t")))
    assert [document.text for document in found] == ["Größe 0", "Größe 1", "Größe 2"]
    assert [document.name for document in found] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:6"]
    (tmp_path / "a.txt").write_bytes((end.join(["one", "", "two"]) + end * last).encode())
    (text,) = [document.text for document in documents(Source(text=str(tmp_path / "a.txt")))]
    assert text == "one\n\ntwo" + "\n" * last
