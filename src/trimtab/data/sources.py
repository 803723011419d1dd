"""Where text comes from: the standard library's own sources, text files, JSON lines. Yields documents.

A document is a unit that must not be in two splits: a file, a line of a JSON-lines file, or a piece of a
long text file. Knows nothing of tokens. Every fault names the file and, where there is one, the line and
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

from trimtab.data.chat import Message, check_messages
from trimtab.spec.errors import DataError
from trimtab.spec.recipe_data import Source

# Their lines repeat across files (generated tables, tests), so they would leak from train to test.
_LEFT_OUT = frozenset(
    {"encodings", "pydoc_data", "idle_test", "test", "tests", "lib2to3", "site-packages", "dist-packages"}
)
# A text file is cut at line ends into about this many pieces, of sizes within the bounds, in bytes.
_PIECES, _MIN_PIECE_BYTES, _MAX_PIECE_BYTES = 200, 512, 8192


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is stable from run to run. `ends`: the text is over here, and the next document is another text.

    A chat carries `messages` and no `text` until a template has rendered it. `label` is the text's class, if any.
    """

    name: str
    text: str = ""
    label: str = ""
    messages: tuple[Message, ...] = ()
    ends: bool = True


def plain_text(document: Document) -> str:
    """The words of a document without any template: what overlap compares and a tokenizer is trained on."""
    return document.text or "\n".join(message.content for message in document.messages)


def documents(source: Source) -> Iterator[Document]:
    """Raises `DataError` for a file that is missing, not UTF-8, or malformed."""
    if source.stdlib:
        return _standard_library()
    if source.jsonl:
        field = source.messages or source.text or ""
        return _json_lines(Path(source.jsonl), field, chat=bool(source.messages), label=source.label)
    return _text_file(Path(source.text or ""))


def files(source: Source) -> list[Path]:
    """The files that a source reads, to see whether they changed."""
    if source.stdlib:
        root = _standard_library_root()
        return [root / name for name in _standard_library_names(root)]
    return [Path(source.jsonl or source.text or "")]


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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the file is not UTF-8 text (byte {error.start}).",
            where=str(path),
            remedy="Convert it to UTF-8.",
        ) from error
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}.", where=str(path)) from error


def _text_file(path: Path) -> Iterator[Document]:
    text = _read(path)
    size = min(max(len(text) // _PIECES, _MIN_PIECE_BYTES), _MAX_PIECE_BYTES)
    pieces = [piece for piece in cut_at_lines(text, size) if piece]
    for index, piece in enumerate(pieces):
        yield Document(name=f"{path.name}#{index}", text=piece, ends=index == len(pieces) - 1)


def cut_at_lines(text: str, size: int) -> Iterator[str]:
    """Pieces of at least `size` characters that end at a line's end; together they are the text."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + size - 1) + 1
        end = end or len(text)
        yield text[start:end]
        start = end


def _json_lines(path: Path, field: str, *, chat: bool, label: str | None) -> Iterator[Document]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    document = _row(line, field, f"{path}:{number}", chat=chat, label=label)
                    yield msgspec.structs.replace(document, name=f"{path.name}:{number}")
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}.", where=str(path)) from error


def _row(line: bytes, field: str, where: str, *, chat: bool, label: str | None) -> Document:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("the line is not JSON.", where=where) from error
    for name in (field, label):
        if name is not None and (not isinstance(row, dict) or name not in row):
            known = ", ".join(row) if isinstance(row, dict) else "none"
            raise DataError(f"the line has no field {name!r}.", where=where, remedy=f"Fields here: {known}.")
    if chat:
        return Document(name="", messages=check_messages(row[field], where=f"{where} {field}"))
    if not isinstance(row[field], str):
        raise DataError("the field is not text.", where=f"{where} {field}")
    return Document(name="", text=row[field], label=_label(row[label], f"{where} {label}") if label else "")


def _label(value: Any, where: str) -> str:
    """A class as text, so that 1 and "1" are one."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise DataError(f"the label is {value!r}, neither a word nor a whole number.", where=where)
    return str(value)
