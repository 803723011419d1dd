"""A check of safetensors files by their header alone, before any library reads them. No tensor is loaded.

A file that passes holds exactly the tensors that its header names: no gap, no overlap, no byte before or
after, no name twice. Format: uint64 length of the header, little-endian | header, JSON | data. The one parser:
whoever wants to know what a file holds asks `read_header`.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import msgspec

from trimtab.spec.errors import ModelError
from trimtab.spec.json_file import JsonError, parse_object

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 16
# A tensor is a name, a type, two or three lengths and two offsets; a few more are for the metadata.
_MAX_VALUES = 10 * MAX_TENSORS
_LFS_START = b"version https://git-lfs"
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a file: `dtype` as the format writes it (`BF16`), and where its bytes lie in `file`."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.end - self.begin


def check_safetensors(path: Path) -> int:
    """Number of elements of all tensors together. Raises `ModelError` that says what is wrong."""
    return sum(tensor.elements for tensor in read_header(path).values())


def read_header(path: Path, where: Path | None = None) -> dict[str, Tensor]:
    """The tensors of a file, by name. Raises `ModelError` that says what is wrong with it, and names `where`."""
    where = where or path
    try:
        entries, start, data_bytes = _entries(path, where)
    except (JsonError, msgspec.ValidationError) as error:
        raise _bad(where, f"its header is not readable ({error})") from error
    except OSError as error:
        raise ModelError(f"the file cannot be read: {error.strerror}.", where=str(where)) from error
    expected = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1].data_offsets):
        begin, end = entry.data_offsets
        shown, bits = repr(name[:80]), _BITS.get(entry.dtype)
        if bits is None:
            raise _bad(where, f"tensor {shown} has the unknown type {entry.dtype[:20]!r}")
        if not _is_sane(entry.shape) or (end - begin) * 8 != math.prod(entry.shape) * bits:
            raise _bad(where, f"tensor {shown} has a shape that does not fit its bytes")
        if begin != expected:
            raise _bad(where, f"tensor {shown} starts at byte {begin}, not at {expected}")
        expected = end
    if expected != data_bytes:
        raise _bad(where, f"it holds {data_bytes} bytes of data where its header names {expected}")
    return {
        name: Tensor(entry.dtype, entry.shape, path, *(start + offset for offset in entry.data_offsets))
        for name, entry in entries.items()
    }


def _entries(path: Path, where: Path) -> tuple[dict[str, _Entry], int, int]:
    """The header's entries by name, where the data starts, and how many bytes of it follow."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if prefix == _LFS_START[:8]:
            raise ModelError(
                "this is a pointer of Git LFS, not the file itself.",
                where=str(where),
                remedy="Run: git lfs pull.",
            )
        if length > size - 8:
            raise _bad(where, "it is too short")
        if length > MAX_HEADER_BYTES:
            raise _bad(where, f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
        header = parse_object(file.read(length), max_values=_MAX_VALUES)
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _bad(where, f"it names {len(header)} tensors, more than {MAX_TENSORS}")
    entries = {name: msgspec.convert(entry, _Entry) for name, entry in header.items()}
    return entries, 8 + length, size - 8 - length


def _is_sane(shape: tuple[int, ...]) -> bool:
    """Few lengths and none of them absurd, so that their product costs nothing."""
    return len(shape) <= MAX_DIMENSIONS and all(0 <= length < 2**63 for length in shape)


def _bad(path: Path, what: str) -> ModelError:
    return ModelError(
        f"this is not a safetensors file to trust: {what}.",
        where=str(path),
        remedy="Fetch or convert the model again.",
    )
