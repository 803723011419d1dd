"""A service of real sockets that streams as the API does, a thread a connection; it misbehaves on request."""

import json
import socket
import threading
import time
from contextlib import suppress

import pytest


class StreamingService:
    def __init__(
        self,
        *,
        step_seconds=0.0005,
        status=200,
        body=None,
        usage=True,
        cut=None,
        split=False,
        wait=0.0,
        close_after=None,
    ):
        self.step_seconds, self.status, self.body, self.usage = step_seconds, status, body, usage
        self.cut, self.split, self.wait = cut, split, wait
        self.close_after = close_after
        self.requests, self.connections, self.busy, self.most = [], 0, 0, 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with suppress(OSError), connection, connection.makefile("rb") as reader:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = 0
            while line := reader.readline():
                headers = {}
                while (field := reader.readline().strip()) != b"":
                    name, _, value = field.partition(b": ")
                    headers[name.decode().lower()] = value.decode()
                body = json.loads(reader.read(int(headers["content-length"])))
                with self._lock:
                    self.requests.append((line.decode().split()[1], headers, body))
                    self.busy += 1
                    self.most = max(self.most, self.busy)
                self._answer(connection, body)
                with self._lock:
                    self.busy -= 1
                answered += 1
                if answered == self.close_after:
                    return

    def _answer(self, connection, body):
        time.sleep(self.wait)
        if self.status != 200:
            text = json.dumps(self.body).encode()
            head = f"HTTP/1.1 {self.status} No\r\ncontent-length: {len(text)}\r\n\r\n"
            self._send(connection, head.encode())
            self._send(connection, text)
            return
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self._send(connection, head)
        for index in range(body["max_tokens"]):
            time.sleep(self.step_seconds)
            if self.cut == index:
                connection.shutdown(socket.SHUT_RDWR)
                return
            self._event(connection, {"id": "cmpl-1", "choices": [{"index": 0, "text": f" t{index}"}]})
        if self.body is not None:
            self._event(connection, self.body)
        if self.usage:
            counts = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
            self._event(connection, {"id": "cmpl-1", "choices": [], "usage": counts})
        self._chunk(connection, b"data: [DONE]\n\n")
        self._send(connection, b"0\r\n\r\n")

    def _event(self, connection, record):
        self._chunk(connection, b"data: " + json.dumps(record).encode() + b"\n\n")

    def _chunk(self, connection, data):
        self._send(connection, b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, connection, data):
        if not self.split:
            connection.sendall(data)
            return
        for byte in range(len(data)):
            connection.sendall(data[byte : byte + 1])


@pytest.fixture
def streaming():
    started = []

    def start(**options):
        started.append(StreamingService(**options))
        return started[-1]

    yield start
    for service in started:
        service.close()
