"""The gateway's end of the wire, fed with frames: who hears what, what is counted, what closes the connection."""

import asyncio

import pytest

from trimtab.service import turns
from trimtab.service.connection import Connection
from trimtab.spec.errors import EngineError, OverloadedError, TrimtabError, UsageError
from trimtab.spec.wire import (
    Capabilities,
    Chunk,
    Event,
    Fault,
    FrameReader,
    Hello,
    Scored,
    Step,
    Submit,
    encode,
)

HELLO = Hello(
    engine="x",
    capabilities=Capabilities(kinds=("generate",), context_length=8, vocabulary_size=8),
    content_digest="",
    pid=1,
    load_seconds=0.0,
)


class Transport(asyncio.Transport):
    def __init__(self):
        self.sent, self.closed, self._reader = [], False, FrameReader()
        self.reading = True

    def write(self, data):
        self.sent += [message for message, _ in self._reader.feed(data)]

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Sink:
    def __init__(self, connection, cost=5):
        self.cost, self.heard, self._connection = cost, [], connection

    def on_event(self, event):
        self.heard.append(event)
        self._connection.touched.append(self)

    def on_scored(self, scored, parts):
        self.heard.append((scored, parts))

    def on_fault(self, error):
        self.heard.append(error)

    def flush(self):
        self.heard.append("flush")


@pytest.fixture
def connected():
    """A connection inside a loop: `run(function)` calls it there."""

    def run(function):
        async def main():
            connection = Connection()
            connection.connection_made(Transport())
            connection.data_received(encode(HELLO))
            function(connection, connection._transport)

        asyncio.run(main())

    return run


def submit(connection, request, cost=5):
    sink = Sink(connection, cost)
    connection.submit(Submit(id=request, kind="generate"), b"\1\0\0\0", sink)
    return sink


def test_events_go_to_who_asked_and_one_flush_follows_a_read(connected):
    def check(connection, transport):
        sink = submit(connection, 1)
        first = encode(Chunk(events=(Event(id=1, tokens=(4,)), Event(id=9, tokens=(1, 2)))))
        last = encode(Chunk(events=(Event(id=1, tokens=(5,), finish="length"),)))
        assert (len(connection), connection.cost) == (1, 5)
        connection.data_received(first + last)
        assert [each.tokens for each in sink.heard[:2]] == [(4,), (5,)]
        assert sink.heard[2:] == ["flush", "flush"]
        assert (len(connection), connection.cost, connection.wasted_tokens) == (0, 0, 2)

    connected(check)


def test_a_worker_that_outruns_us_leaves_the_loop_to_others_between_its_frames(monkeypatch):
    """Frames that came together are taken in turns, in order and once each; nothing new is read before."""
    monkeypatch.setattr(turns, "TURN_SECONDS", -1.0)

    async def main():
        connection, transport = Connection(), Transport()
        connection.connection_made(transport)
        sink = submit(connection, 1)
        frames = [encode(Chunk(events=(Event(id=1, tokens=(number,)),))) for number in range(5)]
        connection.data_received(b"".join(frames)[:-3])
        seen = []
        for _ in range(8):
            seen.append((len([each for each in sink.heard if each != "flush"]), transport.reading))
            await asyncio.sleep(0)
        assert seen[:3] == [(1, False), (2, False), (3, False)]
        assert seen[-1] == (4, True)
        connection.data_received(frames[-1][-3:])
        await asyncio.sleep(0)
        heard = [each.tokens[0] for each in sink.heard if each != "flush"]
        assert heard == [0, 1, 2, 3, 4]

    asyncio.run(main())


def test_a_cancelled_request_hears_nothing_and_is_cancelled_once(connected):
    def check(connection, transport):
        sink = submit(connection, 1)
        connection.cancel(1)
        connection.cancel(1)
        assert [type(message).__name__ for message in transport.sent] == ["Submit", "Cancel"]
        connection.data_received(encode(Chunk(events=(Event(id=1, tokens=(1, 2, 3)),))))
        assert sink.heard == []
        assert connection.wasted_tokens == 3

    connected(check)


@pytest.mark.parametrize(
    ("code", "kind"), [("invalid", UsageError), ("overloaded", OverloadedError), ("failed", EngineError)]
)
def test_a_fault_is_told_to_who_asked(connected, code, kind):
    def check(connection, transport):
        sink, other = submit(connection, 1), submit(connection, 2)
        connection.data_received(encode(Fault(id=1, code=code, message="what /secret/path said")))
        (error,) = sink.heard
        assert isinstance(error, kind)
        assert ("/secret/path" in str(error)) == (code == "invalid")
        assert other.heard == []

    connected(check)


def test_a_lost_connection_is_told_to_all(connected):
    def check(connection, transport):
        sinks = [submit(connection, 1), submit(connection, 2)]
        connection.connection_lost(None)
        assert all(isinstance(sink.heard[0], EngineError) for sink in sinks)
        assert connection.lost.done()
        assert len(connection) == 0

    connected(check)


@pytest.mark.parametrize("data", [b"\xff" * 64, encode(HELLO)[:4] + b"\0" * 200])
def test_bytes_that_are_no_frame_close_it(connected, data):
    def check(connection, transport):
        connection.data_received(data)
        assert transport.closed
        assert connection.failure
        with pytest.raises(EngineError):
            submit(connection, 1)

    connected(check)


def test_another_protocol_is_refused(connected):
    async def main():
        connection = Connection()
        connection.connection_made(Transport())
        connection.data_received(
            encode(Hello(**{**{f: getattr(HELLO, f) for f in HELLO.__struct_fields__}, "protocol": 99}))
        )
        assert connection._transport.closed
        assert "protocol 99" in connection.failure
        assert not connection.hello.done()

    asyncio.run(main())


def test_steps_and_scores(connected):
    def check(connection, transport):
        frames = connection.frames
        sink = submit(connection, 1)
        connection.data_received(encode(Step(counter=7, running=1, waiting=0)))
        assert connection.step.counter == 7
        connection.data_received(encode(Scored(id=1, top=0), b"\0\0\0\0"))
        assert sink.heard[0][1] == [b"\0\0\0\0"]
        assert connection.frames == frames + 2

    connected(check)


class PanicError(BaseException):
    """As native libraries raise it."""


@pytest.mark.parametrize("error", [ValueError("a user's words"), PanicError("a user's words")])
@pytest.mark.parametrize("place", ["on_event", "on_scored", "on_fault", "flush"])
def test_who_raises_loses_only_his_own_request(connected, caplog, error, place):
    def fails(*_):
        raise error

    def check(connection, transport):
        first, bad, last = (submit(connection, request) for request in (1, 2, 3))
        bad.fail = bad.heard.append
        setattr(bad, place, fails)
        news = {
            "on_event": [Chunk(events=tuple(Event(id=each, tokens=(4,)) for each in (1, 2, 3)))],
            "flush": [Chunk(events=tuple(Event(id=each, tokens=(4,)) for each in (1, 2, 3)))],
            "on_scored": [Scored(id=each, top=0) for each in (1, 2, 3)],
            "on_fault": [Fault(id=each, code="failed", message="x") for each in (1, 2, 3)],
        }[place]
        connection.data_received(b"".join(encode(message) for message in news))
        for _ in news:  # a slow machine takes a frame a turn
            connection.data_received(b"")
        assert not transport.closed
        assert len(first.heard) == len(last.heard) == (2 if place in ("on_event", "flush") else 1)
        if place == "on_event":
            assert [type(message).__name__ for message in transport.sent[3:]] == ["Cancel"]
            assert len(connection) == 2
            assert connection.cost == first.cost + last.cost
        if place != "on_fault":
            assert [each.status for each in bad.heard if isinstance(each, TrimtabError)] == [500]
        connection.connection_lost(None)
        assert connection.lost.done()

    connected(check)
    assert "PanicError at" in caplog.text or "ValueError at" in caplog.text
    assert "words" not in caplog.text


def test_a_lost_connection_is_told_to_all_also_behind_one_who_raises(connected):
    def check(connection, transport):
        bad, good = submit(connection, 1), submit(connection, 2)
        bad.on_fault = None  # calling it raises
        connection.connection_lost(None)
        assert isinstance(good.heard[0], EngineError)

    connected(check)
