"""A bare gateway: talks to one real worker over the wire, in the test's own thread."""

import select
import socket
import time
from collections import deque

import numpy as np

from trimtab.engines.base import Score
from trimtab.spec.wire import Chunk, Drain, FrameReader, Hello, Sampling, Scored, Step, Submit, encode


class Gateway:
    """The other end of one worker's wire. Every wait has an end."""

    def __init__(self, process, address):
        self.process, self.address, self._reader = process, address, FrameReader()
        self._arrived = deque()
        self.socket = socket.socket(socket.AF_UNIX)

    def wait_until_it_listens(self, seconds=30.0):
        until = time.monotonic() + seconds
        while not self.address.exists():
            assert self.process.poll() is None, self.words()
            assert time.monotonic() < until, "the worker does not listen"
            time.sleep(0.01)

    def connect(self):
        self.wait_until_it_listens()
        self.socket.connect(str(self.address))
        return self

    def words(self):
        """What the worker has said on stdout and stderr."""
        return self.address.with_suffix(".err").read_text()

    def end(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def next(self, seconds=30.0):
        """The next (message, parts); None when the worker has closed. Fails the test after `seconds`."""
        until = time.monotonic() + seconds
        while not self._arrived:
            ready, _, _ = select.select([self.socket], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"the worker said nothing for {seconds} s"
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._arrived += self._reader.feed(data)
        return self._arrived.popleft()

    def hello(self):
        message, _ = self.next(90)
        assert isinstance(message, Hello), message
        self.capabilities = message.capabilities
        return message

    def wait_for(self, kind, seconds=30.0, **fields):
        """The first message of a kind with these fields, and its parts."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self.next(seconds)
            assert found is not None, "the worker closed the connection"
            message, parts = found
            if isinstance(message, kind) and all(getattr(message, k) == v for k, v in fields.items()):
                return message, parts
        raise AssertionError(f"no {kind.__name__} {fields} within {seconds} s")

    def send(self, message, *parts):
        self.socket.sendall(encode(message, *parts))

    def generate(self, id_, prompt, *, deadline=None, **sampling):
        submit = Submit(id=id_, kind="generate", sampling=Sampling(**sampling), deadline=deadline)
        self.send(submit, np.asarray(prompt, "<i4").tobytes())

    def answers(self, *ids, seconds=60.0):
        """id → (tokens, log-probabilities, finish) once all have ended."""
        found = {id_: ([], [], None) for id_ in ids}
        until = time.monotonic() + seconds
        while any(finish is None for _, _, finish in found.values()):
            assert time.monotonic() < until, found
            arrived = self.next(seconds)
            assert arrived is not None, "the worker closed the connection"
            message = arrived[0]
            assert isinstance(message, Chunk | Step), message
            for event in message.events if isinstance(message, Chunk) else ():
                if event.id in found:
                    tokens, logprobs, _ = found[event.id]
                    found[event.id] = ([*tokens, *event.tokens], [*logprobs, *event.logprobs], event.finish)
        return found

    def score(self, tokens, top=0, id_=99_999):
        """A `Score`, as the engine in the worker made it."""
        self.send(Submit(id=id_, kind="score", top=top), np.asarray(tokens, "<i4").tobytes())
        _, parts = self.wait_for(Scored, id=id_, top=top)
        assert len(parts) == (3 if top else 1)
        ids, best = (parts[1], parts[2]) if top else (b"", b"")
        shape = (len(tokens), top)
        return Score(
            logprobs=np.frombuffer(parts[0], "<f4"),
            top_ids=np.frombuffer(ids, "<i4").reshape(shape),
            top_logprobs=np.frombuffer(best, "<f4").reshape(shape),
        )

    def drain(self):
        self.send(Drain())
