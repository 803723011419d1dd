"""A worker without an engine, for tests of the gateway: speaks the wire, and misbehaves on request.

It answers a prompt with the bytes of `SAYS`, one a step, again and again. The first prompt byte may order a fault:
`!` die now, `?` refuse, `~` stand still (sleep for ever), `^` burn CPU without a word for `BURN_SECONDS`.
In the environment: FAKE_LOAD_FAILS=text makes loading fail with that line, FAKE_LOG=file notes what was asked.
"""

import argparse
import array
import json
import os
import select
import socket
import sys
import time
from pathlib import Path

from trimtab.spec import lifeline
from trimtab.spec.wire import (
    Cancel,
    Capabilities,
    Chunk,
    Drain,
    Event,
    Fault,
    FrameReader,
    Hello,
    Scored,
    Step,
    Submit,
    encode,
)

SAYS = "héllo wörld. ".encode()
BURN_SECONDS = 2.5
CONTEXT = 4096


class Running:
    def __init__(self, message):
        self.message, self.sent = message, 0
        self.left = message.sampling.max_tokens

    def step(self):
        token = SAYS[self.sent % len(SAYS)]
        self.sent += 1
        self.left -= 1
        return Event(
            id=self.message.id,
            tokens=(token,),
            logprobs=(-0.5,) if self.message.sampling.logprobs else (),
            finish=None if self.left else "length",
        )


class Worker:
    def __init__(self, arguments):
        serving = json.loads(Path(arguments.serving).read_text())
        self.pause = (serving.get("mock") or {}).get("step_seconds", 0.001)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(arguments.address.removeprefix("unix:"))
        self.listener.listen(1)
        self.running, self.reader, self.draining, self.steps = {}, FrameReader(), False, 0

    def note(self, word):
        if path := os.environ.get("FAKE_LOG"):
            with Path(path).open("a") as file:
                file.write(f"{time.monotonic():.6f} {word}\n")

    def send(self, message, *parts):
        self.socket.sendall(encode(message, *parts))

    def serve(self):
        self.socket, _ = self.listener.accept()
        self.send(
            Hello(
                engine="fake",
                content_digest="0",
                pid=os.getpid(),
                load_seconds=0.0,
                capabilities=Capabilities(
                    kinds=("generate", "score"), context_length=CONTEXT, vocabulary_size=256
                ),
            )
        )
        beat = due = time.monotonic()
        while not (self.draining and not self.running):
            now = time.monotonic()
            wait = max(0.0, due - now) if self.running else 0.2
            ready = select.select([self.socket], [], [], wait)[0]
            if self.socket in ready:
                data = self.socket.recv(2**16)
                if not data:
                    return
                for message, parts in self.reader.feed(data):
                    self.take(message, parts)
            now = time.monotonic()
            if self.running and now >= due:
                self.steps += 1
                due = now + self.pause
                events = tuple(each.step() for each in self.running.values())
                self.send(Chunk(events=events))
                for event in events:
                    if event.finish:
                        del self.running[event.id]
            if now - beat > 0.3:
                beat = now
                self.send(Step(counter=self.steps, running=len(self.running), waiting=0))

    def take(self, message, parts):
        if isinstance(message, Cancel):
            self.note(f"cancel {message.id}")
            self.running.pop(message.id, None)
        elif isinstance(message, Drain):
            self.note("drain")
            self.draining = True
        elif isinstance(message, Submit):
            prompt = array.array("i")
            prompt.frombytes(parts[0])
            self.note(f"{message.kind} {message.id} {len(prompt)}")
            if message.deadline is not None:
                self.note(f"deadline {message.deadline}")
            if message.kind == "score":
                self.score(message, prompt)
            else:
                self.generate(message, prompt)

    def generate(self, message, prompt):
        order = chr(prompt[0])
        if order == "!":
            os._exit(3)
        if order == "?":
            self.send(Fault(id=message.id, code="invalid", message="the engine does not like it."))
        elif order == "~":
            time.sleep(1e6)
        else:
            until = time.monotonic() + (BURN_SECONDS if order == "^" else 0)
            while time.monotonic() < until:
                pass
            self.running[message.id] = Running(message)

    def score(self, message, prompt):
        time.sleep(float(os.environ.get("FAKE_SCORE_SECONDS", "0")))
        logprobs = array.array("f", [float("nan"), *[-0.25 * i for i in range(1, len(prompt))]])
        parts = [logprobs.tobytes()]
        if message.top:
            ids = array.array("i", [(each + k) % 256 for each in prompt for k in range(message.top)])
            tops = array.array("f", [-0.1 * (k + 1) for _ in prompt for k in range(message.top)])
            parts += [ids.tobytes(), tops.tobytes()]
        self.send(Scored(id=message.id, top=message.top), *parts)


def main():
    lifeline.die_with_parent()
    parser = argparse.ArgumentParser()
    for name in ("--artifact", "--serving", "--address", "--home", "--cores"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    if text := os.environ.get("FAKE_LOAD_FAILS"):
        print(f"error: {text}", file=sys.stderr)
        sys.exit(1)
    Worker(arguments).serve()


if __name__ == "__main__":
    main()
