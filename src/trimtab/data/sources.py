"""Where text comes from: the standard library's own sources, text files, JSON lines. Yields documents.

A document is a unit that must not be in two splits: a file, a line of a JSON-lines file, or a piece of a
long text. Knows nothing of tokens. Every fault names the file and, where there is one, the line and
the field.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from trimtab.data.chat import Message, check_messages, check_tools, words
from trimtab.data.reading import (
    LONGEST_BEGINNING,
    check_characters,
    check_file_name,
    decoded,
    read_text,
    refuse_other_kinds,
    unreadable,
    without_mark,
)
from trimtab.spec.errors import DataError
from trimtab.spec.recipe_data import Source

# Their lines repeat across files (generated tables, tests), so they would leak from train to test.
_LEFT_OUT = frozenset(
    {"encodings", "pydoc_data", "idle_test", "test", "tests", "lib2to3", "site-packages", "dist-packages"}
)
# A text is cut at line ends into about this many pieces, of sizes within the bounds, in characters; a line that is
# so many times longer is cut between words.
_PIECES, _MIN_PIECE, _MAX_PIECE, _LONG_LINE = 200, 512, 8192, 4


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is stable from run to run. `ends`: the text is over here, and the next document is another text.

    A chat carries `messages` and no `text` until a template has rendered it, and the `tools` that it was told of.
    `label` is the text's class, if any. `where` is its place in full, for a fault that is found later.
    """

    name: str
    where: str = ""
    text: str = ""
    label: str = ""
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    ends: bool = True


def plain_text(document: Document) -> str:
    """The words of a document without any template: what overlap compares and a tokenizer is trained on."""
    return document.text or words(document.messages)


def documents(source: Source) -> Iterator[Document]:
    """Those that hold something. Raises `DataError` for a file that is missing, not UTF-8, or malformed."""
    if source.stdlib:
        return _standard_library()
    if source.jsonl:
        field = source.messages or source.text or ""
        return _json_lines(Path(source.jsonl), field, chat=bool(source.messages), label=source.label)
    return _text_file(Path(source.text or ""))


def files(source: Source) -> list[Path]:
    """The files that a source reads, to see whether they changed. Raises `DataError` for a name that is not UTF-8."""
    if source.stdlib:
        root = _standard_library_root()
        return [root / name for name in _standard_library_names(root)]
    path = Path(source.jsonl or source.text or "")
    check_file_name(path)
    return [path]


def _standard_library_root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _standard_library_names(root: Path) -> list[PurePosixPath]:
    names = []
    for folder, subfolders, found in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if name not in _LEFT_OUT)
        relative = PurePosixPath(Path(folder).relative_to(root).as_posix())
        names += [relative / name for name in found if name.endswith(".py")]
    return sorted(names)


def _standard_library() -> Iterator[Document]:
    root = _standard_library_root()
    for name in _standard_library_names(root):
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        if text.strip():
            yield Document(name=str(name), text=text)


def _text_file(path: Path) -> Iterator[Document]:
    yield from divided(Document(name=path.name, text=read_text(path)))


def divided(document: Document) -> Iterator[Document]:
    """A long text in pieces, of which the last one ends it; together they are the text, but for blank ones."""
    pieces = [piece for piece in _pieces(document.text) if piece.strip()]
    for index, piece in enumerate(pieces):
        yield Document(name=f"{document.name}#{index}", text=piece, ends=index == len(pieces) - 1)


def _pieces(text: str) -> Iterator[str]:
    size = min(max(len(text) // _PIECES, _MIN_PIECE), _MAX_PIECE)
    for piece in cut_at_lines(text, size):
        if len(piece) < _LONG_LINE * size:
            yield piece
        else:
            yield from cut_at_words(piece, size)


def cut_at_lines(text: str, size: int) -> Iterator[str]:
    """Pieces of at least `size` characters that end at a line's end; together they are the text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + size - 1) + 1
        end = end or len(text)
        yield text[start:end]
        start = end


def cut_at_words(text: str, size: int) -> Iterator[str]:
    """The same of text without lines: pieces end before a blank, which belongs to the word behind it. Where there is
    none for as long again, as in scripts that write none, they end anywhere.
    """
    start = 0
    while len(text) - start > 2 * size:
        blank = text.find(" ", start + size, start + 2 * size)
        end = blank if blank >= 0 else start + size
        yield text[start:end]
        start = end
    yield text[start:]


def _json_lines(path: Path, field: str, *, chat: bool, label: str | None) -> Iterator[Document]:
    try:
        with path.open("rb") as lines:
            refuse_other_kinds(lines.read(LONGEST_BEGINNING), path)
            lines.seek(0)
            for number, read in enumerate(lines, 1):
                line = without_mark(read) if number == 1 else read
                if line.strip():
                    document = _row(line, field, f"{path}:{number}", chat=chat, label=label)
                    if document.messages or document.text.strip():
                        yield msgspec.structs.replace(
                            document, name=f"{path.name}:{number}", where=f"{path}:{number}"
                        )
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _row(line: bytes, field: str, where: str, *, chat: bool, label: str | None) -> Document:
    try:
        row: Any = json.loads(decoded(line, where, line=True))
    except (ValueError, RecursionError) as error:
        raise DataError(
            "the line is not JSON.",
            where=where,
            remedy="Each line is one JSON object; of one list over many lines: jq -c '.[]'.",
        ) from error
    for name in (field, label):
        if name is not None and (not isinstance(row, dict) or name not in row):
            known = ", ".join(row) if isinstance(row, dict) else "none"
            raise DataError(f"the line has no field {name!r}.", where=where, remedy=f"Fields here: {known}.")
    if chat:
        messages = check_messages(row[field], where=f"{where} {field}")
        return Document(name="", messages=messages, tools=check_tools(row, where=where))
    if not isinstance(row[field], str):
        raise DataError("the field is not text.", where=f"{where} {field}")
    check_characters(row[field], f"{where} {field}")
    return Document(name="", text=row[field], label=_label(row[label], f"{where} {label}") if label else "")


def _label(value: Any, where: str) -> str:
    """A class as text, so that 1 and "1" are one."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"the label is {value!r}, neither a word nor a whole number.", where=where)
    check_characters(str(value), where)
    return str(value)
