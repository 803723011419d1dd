"""A check of safetensors files by their header alone, before any library reads them. No tensor is loaded.

A file that passes holds exactly the tensors that its header names: no gap, no overlap, no byte before or
after. Format: uint64 length of the header, little-endian | header, JSON | data.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import msgspec

from trimtab.spec.errors import ModelError

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 50_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TENSOR_DECODER = msgspec.json.Decoder(_Tensor)


def check_safetensors(path: Path) -> int:
    """Number of elements of all tensors together. Raises `ModelError` that says what is wrong."""
    try:
        tensors, data_bytes = _read_header(path)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(path, f"its header is not readable ({error})") from error
    expected = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        begin, end = tensor.data_offsets
        bits = _BITS.get(tensor.dtype)
        if bits is None:
            raise _bad(path, f"tensor {name!r} has the unknown type {tensor.dtype!r}")
        if any(length < 0 for length in tensor.shape) or (end - begin) * 8 != tensor.elements * bits:
            raise _bad(path, f"tensor {name!r} has a shape that does not fit its bytes")
        if begin != expected:
            raise _bad(path, f"tensor {name!r} starts at byte {begin}, not at {expected}")
        expected = end
    if expected != data_bytes:
        raise _bad(path, f"it holds {data_bytes} bytes of data where its header names {expected}")
    return sum(tensor.elements for tensor in tensors.values())


def _read_header(path: Path) -> tuple[dict[str, _Tensor], int]:
    """The tensors by name, and how many bytes of data follow the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > size - 8:
            raise _bad(path, "it is too short")
        if length > MAX_HEADER_BYTES:
            raise _bad(path, f"its header has {length} bytes, more than {MAX_HEADER_BYTES}")
        entries = _DECODER.decode(file.read(length))
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise _bad(path, f"it names {len(entries)} tensors, more than {MAX_TENSORS}")
    return {name: _TENSOR_DECODER.decode(raw) for name, raw in entries.items()}, size - 8 - length


def _bad(path: Path, what: str) -> ModelError:
    return ModelError(
        f"this is not a safetensors file to trust: {what}.",
        where=str(path),
        remedy="Fetch or convert the model again.",
    )
