import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.spec import wire

whole = st.integers(0, 2**31 - 1)
words = st.text(max_size=20)
events = st.builds(
    wire.Event,
    id=whole,
    tokens=st.lists(whole, max_size=4).map(tuple),
    logprobs=st.lists(st.floats(allow_nan=False), max_size=4).map(tuple),
    finish=st.sampled_from([None, "stop", "length", "cancelled", "error"]),
    error=st.none() | words,
)
messages = st.one_of(
    st.builds(
        wire.Hello,
        engine=words,
        capabilities=st.builds(
            wire.Capabilities,
            kinds=st.just(("generate", "score")),
            context_length=whole,
            vocabulary_size=whole,
            eos_token_ids=st.lists(whole, max_size=3).map(tuple),
        ),
        content_digest=words,
        pid=whole,
        load_seconds=st.floats(0, 1e6),
    ),
    st.builds(
        wire.Submit,
        id=whole,
        kind=st.sampled_from(["generate", "score"]),
        sampling=st.none()
        | st.builds(wire.Sampling, max_tokens=whole, temperature=st.floats(0, 2), seed=st.none() | whole),
        deadline=st.none() | st.floats(0, 1e6),
        tenant=words,
    ),
    st.builds(wire.Chunk, events=st.lists(events, max_size=5).map(tuple)),
    st.builds(wire.Scored, id=whole, top=whole),
    st.builds(wire.Cancel, id=whole),
    st.just(wire.Drain()),
    st.builds(wire.Step, counter=whole, running=whole, waiting=whole),
    st.builds(wire.Fault, message=words, code=st.sampled_from(["invalid", "deadline"]), id=st.none() | whole),
)
frames = st.lists(st.tuples(messages, st.lists(st.binary(max_size=64), max_size=3)), min_size=1, max_size=6)


def _read(reader, pieces):
    return [frame for piece in pieces for frame in reader.feed(piece)]


@given(frames, st.data())
def test_frames_survive_any_cut_of_the_stream(sent, data):
    stream = b"".join(wire.encode(message, *parts) for message, parts in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    read = _read(wire.FrameReader(), pieces)
    assert [(msgspec.structs.replace(message, parts=()), parts) for message, parts in read] == sent
    assert [message.parts for message, _ in read] == [tuple(map(len, parts)) for _, parts in sent]


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_any_bytes_are_frames_or_a_wire_error(pieces):
    reader = wire.FrameReader()
    try:
        _read(reader, pieces)
    except wire.WireError as error:
        assert str(error)  # noqa: PT017 - either is right


@given(messages, st.binary(min_size=1, max_size=30), st.data())
def test_a_changed_byte_never_breaks_out(message, part, data):
    frame = bytearray(wire.encode(message, part))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        _read(wire.FrameReader(), [bytes(frame)])
    except wire.WireError as error:
        assert str(error)  # noqa: PT017 - either is right


def test_arrays_travel_uncopied_and_whole():
    tokens = np.arange(5, dtype="<i4")
    for part in (tokens.tobytes(), memoryview(tokens), memoryview(tokens).cast("B")):
        ((_, (back,)),) = _read(wire.FrameReader(), [wire.encode(wire.Submit(id=1, kind="score"), part)])
        assert np.array_equal(np.frombuffer(back, "<i4"), tokens)


def test_lengths_are_bounded_before_anything_is_taken():
    for rest, header in (
        (wire.MAX_FRAME_BYTES + 1, 10),
        (100, 97),
        (2**32 - 1, 4),
        (0, 0),
        (3, 0),
        (wire.MAX_FRAME_BYTES, wire.MAX_HEADER_BYTES + 1),
    ):
        with pytest.raises(wire.WireError, match="announces"):
            _read(wire.FrameReader(), [struct.pack("<II", rest, header)])
    with pytest.raises(wire.WireError, match="over the limit"):
        wire.encode(wire.Drain(), bytes(wire.MAX_FRAME_BYTES))


def _framed(header):
    return struct.pack("<II", 4 + len(header), len(header)) + header


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "shutdown"}),
        msgspec.msgpack.encode({"type": "cancel"}),
        msgspec.msgpack.encode({"type": "cancel", "id": "1"}),
        msgspec.msgpack.encode({"type": "cancel", "id": 1, "parts": [5]}),
        msgspec.msgpack.encode({"type": "cancel", "id": 1, "parts": [-1, 1]}),
        msgspec.msgpack.encode({"type": "submit", "id": 1, "kind": "os.system"}),
        b"\x81\xa4type\xa5\xff\xff\xff\xff\xff",
        b"\x82\xa4type\xa5drain\xa1x" + b"\x91" * 100_000 + b"\xc0",
    ],
)
def test_what_is_no_message_is_refused(header):
    with pytest.raises(wire.WireError):
        _read(wire.FrameReader(), [_framed(header)])


def test_a_newer_peer_may_say_more():
    header = msgspec.msgpack.encode({"type": "cancel", "id": 1, "why": "later"})
    assert _read(wire.FrameReader(), [_framed(header)]) == [(wire.Cancel(id=1), [])]


def test_after_a_bad_frame_the_good_ones_before_it_are_not_read_again():
    reader = wire.FrameReader()
    good, bad = wire.encode(wire.Drain()), _framed(b"\xc1")
    frames = reader.feed(good + bad)
    assert next(frames) == (wire.Drain(), [])
    with pytest.raises(wire.WireError):
        next(frames)
    with pytest.raises(wire.WireError):
        next(reader.feed(b""))
