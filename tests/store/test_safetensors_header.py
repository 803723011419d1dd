"""The header check agrees with the format: it takes what is whole and refuses every gap, overlap and bomb."""

import contextlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.spec.errors import ModelError
from trimtab.store.safetensors_header import MAX_HEADER_BYTES, check_safetensors

SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "BOOL": 1}


def raw(header: object, data: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def check(tmp_path, content: bytes) -> int:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    return check_safetensors(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("headers")


tensors = st.lists(
    st.tuples(st.sampled_from(sorted(SIZES)), st.lists(st.integers(0, 4), max_size=3).map(tuple)), max_size=5
)


def build(specification: list[tuple[str, tuple[int, ...]]]) -> tuple[dict, int, int]:
    header, start, elements = {"__metadata__": {"format": "pt"}}, 0, 0
    for index, (dtype, shape) in enumerate(specification):
        count = 1
        for length in shape:
            count *= length
        end = start + count * SIZES[dtype]
        header[f"t{index}"] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        start, elements = end, elements + count
    return header, start, elements


@given(tensors)
@settings(max_examples=60, deadline=None)
def test_whole_files_pass_and_are_counted(folder, specification):
    header, size, elements = build(specification)
    assert check(folder, raw(header, bytes(size))) == elements


@given(tensors, st.integers(-3, 3).filter(bool))
@settings(max_examples=60, deadline=None)
def test_one_byte_more_or_less_is_refused(folder, specification, difference):
    header, size, _ = build(specification)
    content = raw(header, bytes(size + max(difference, 0)))
    with pytest.raises(ModelError, match="not a safetensors file to trust"):
        check(folder, content[: len(content) + min(difference, 0)])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_in_a_sentence(folder, content):
    with pytest.raises(ModelError):
        check(folder, content or b"x")


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damage_never_escapes_as_another_error(folder, data):
    header, size, elements = build([("F32", (2, 3)), ("I8", (5,))])
    content = bytearray(raw(header, bytes(size)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelError):
        assert check(folder, bytes(content)) == elements


ONE = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        ({"a": ONE, "b": {**ONE, "data_offsets": [5, 9]}}, 9, "starts at byte 5"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [2, 6]}}, 6, "starts at byte 2"),
        ({"a": {**ONE, "shape": [5]}}, 4, "does not fit"),
        ({"a": {**ONE, "shape": [-4]}}, 4, "does not fit"),
        ({"a": {**ONE, "shape": [2**62, 2**62]}}, 4, "does not fit"),
        ({"a": {**ONE, "dtype": "PICKLE"}}, 4, "unknown type"),
        ({"a": {**ONE, "data_offsets": [4, 0]}}, 4, "does not fit"),
        ({"a": {"dtype": "U8"}}, 0, "not readable"),
        (b"[1, 2]", 0, "not readable"),
        (b"[" * 50_000, 0, "not readable"),
        (
            {str(index): {**ONE, "shape": [0], "data_offsets": [0, 0]} for index in range(50_001)},
            0,
            "50001 tensors",
        ),
    ],
)
def test_each_fault_is_named(tmp_path, header, data, words):
    with pytest.raises(ModelError, match=words):
        check(tmp_path, raw(header, bytes(data)))


def test_a_huge_header_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MAX_HEADER_BYTES + 1))
        file.truncate(MAX_HEADER_BYTES + 100)
    with pytest.raises(ModelError, match=f"more than {MAX_HEADER_BYTES}"):
        check_safetensors(path)


def test_what_safetensors_itself_writes_passes(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    import numpy as np

    numpy.save_file(
        {"a": np.zeros((3, 2), np.float16), "b": np.ones(7, np.int64)}, tmp_path / "m.safetensors"
    )
    assert check_safetensors(tmp_path / "m.safetensors") == 13
