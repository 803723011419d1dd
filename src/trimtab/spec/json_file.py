"""JSON from outside, read within bounds: bytes, values, depth, doubled keys. Numbers may be NaN or infinite.

What it refuses costs next to nothing: sizes are looked at before anything is built.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from trimtab.spec.errors import ModelError

# An index of a hundred thousand tensors has 10 MB; a config or a tokenizer's settings far less.
MAX_BYTES = 16 * 2**20
# Every value follows one of these characters, so counting them bounds what the parser can build.
_BEFORE_VALUES = (b",", b"[", b"{")
MAX_VALUES = 250_000


class JsonError(ValueError):
    """Why some bytes are not taken, in words that follow "this is not valid JSON: "."""


def parse_object(data: bytes, *, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Raises `JsonError` for what is no JSON object, nested too deeply, too full, or names a key twice."""
    if sum(data.count(character) for character in _BEFORE_VALUES) > max_values:
        raise JsonError(f"it has more than {max_values} values")
    try:
        value = json.loads(data.decode(), object_pairs_hook=_without_doubles)
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise JsonError("it is not UTF-8 text") from error
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(str(error)) from error
    if not isinstance(value, dict):
        raise JsonError("it is not an object")
    return value


def read_object(path: Path, where: Path | None = None) -> dict[str, Any]:
    """The object in a file. Raises `ModelError` that names `where`: what was asked for, if `path` is its target."""
    where = where or path
    data = read_bounded(path, where)
    try:
        return parse_object(data)
    except JsonError as fault:
        raise ModelError(
            f"this is not valid JSON: {fault}.", where=str(where), remedy="Fetch the file again, or mend it."
        ) from fault


def read_bounded(path: Path, where: Path | None = None, *, max_bytes: int = MAX_BYTES) -> bytes:
    """A small file's bytes. Raises `ModelError` for one that is too large, or cannot be read."""
    where = where or path
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(min(size, max_bytes) + 1)
    except OSError as error:
        raise ModelError(f"the file cannot be read: {error.strerror}.", where=str(where)) from error
    if len(data) > max_bytes:
        raise ModelError(f"this file has more than {max_bytes} bytes.", where=str(where))
    return data


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise JsonError(f"it names {twice[:80]!r} twice")
    return found
