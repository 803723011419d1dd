"""Hostile clients, each a loop until the time is up. Arguments: HOST PORT KEY MODEL SECONDS; prints rounds by name.

Run as a process of its own, so that what it costs is not felt in the loop of the client that is watched.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys

HOST, PORT, KEY, MODEL, SECONDS = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5])
GONE = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError)


def request(body, *, key=KEY, path="/v1/completions", headers=(), method="POST", length=True):
    payload = body if isinstance(body, bytes) else json.dumps({"model": MODEL, **body}).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if length:
        lines.append(f"Content-Length: {len(payload)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


@contextlib.asynccontextmanager
async def connection(*, reset=False):
    reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, PORT), 5)
    try:
        yield reader, writer
    finally:
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


async def send(writer, data):
    writer.write(data)
    await asyncio.wait_for(writer.drain(), 10)


async def pipelined_then_gone():
    async with connection(reset=True) as (reader, writer):
        one = request({"prompt": "hi", "max_tokens": 400, "stream": True})
        await send(writer, one + one)
        await asyncio.wait_for(reader.read(500), 5)
    await asyncio.sleep(0.02)


async def gone_without_stream():
    async with connection() as (_, writer):
        await send(writer, request({"prompt": "hi", "max_tokens": 2000}))
        await asyncio.sleep(0.05)


async def endless_trailers():
    async with connection() as (_, writer):
        head = request(b"", key=None, headers=["Transfer-Encoding: chunked"], length=False)
        await send(writer, head + b"2\r\n{}\r\n0\r\n")
        for number in range(400):
            await send(writer, b"x-%d: %b\r\n" % (number, b"y" * 8000))
            await asyncio.sleep(0.005)


async def endless_chunks():
    async with connection() as (_, writer):
        await send(writer, request(b"", key=None, headers=["Transfer-Encoding: chunked"], length=False))
        for _ in range(2000):
            await send(writer, b"1;%b\r\n \r\n" % (b"e" * 500))
            await asyncio.sleep(0.002)


async def newlines():
    async with connection() as (_, writer):
        for _ in range(60):
            await send(writer, b"\r\n")
            await asyncio.sleep(1)


async def silent():
    async with connection() as (reader, _):
        await asyncio.wait_for(reader.read(1), 60)


async def slow_body():
    async with connection() as (_, writer):
        await send(writer, request(b" " * 1000)[:-1000])
        for _ in range(60):
            await send(writer, b" ")
            await asyncio.sleep(1)


async def never_reads():
    async with connection() as (_, writer):
        await send(writer, request({"prompt": "hi", "max_tokens": 4000, "stream": True, "logprobs": 0}))
        await asyncio.sleep(10)


async def upgrade():
    async with connection() as (reader, writer):
        inner = request({"prompt": "smuggled", "max_tokens": 1})
        await send(writer, request(inner, headers=["Connection: Upgrade", "Upgrade: websocket"]))
        await asyncio.wait_for(reader.read(500), 5)
    await asyncio.sleep(0.05)


async def big_bodies_without_a_key():
    async with connection() as (reader, writer):
        await send(writer, request(b"[" * (2**20), key=None))
        await asyncio.wait_for(reader.read(500), 5)
    await asyncio.sleep(0.2)


async def deep_json():
    async with connection() as (reader, writer):
        await send(writer, request(b"[" * (2**19)))
        await asyncio.wait_for(reader.read(500), 5)
    await asyncio.sleep(0.2)


async def wrong_keys():
    async with connection() as (reader, writer):
        for _ in range(20):
            wrong = f"tt_{os.urandom(8).hex()}_{os.urandom(24).hex()}"
            await send(writer, request({"prompt": "hi"}, key=wrong))
            await asyncio.wait_for(reader.readuntil(b"}}"), 5)
            await asyncio.sleep(0.01)


async def garbage():
    async with connection() as (reader, writer):
        await send(writer, os.urandom(20_000))
        await asyncio.wait_for(reader.read(500), 5)
    await asyncio.sleep(0.05)


async def large_legal_requests():
    async with connection() as (reader, writer):
        prompts = ["x" * 4000] * 64
        await send(writer, request({"prompt": prompts, "max_tokens": 1, "echo": True, "logprobs": 5, "n": 1}))
        await asyncio.wait_for(reader.read(500), 30)
    await asyncio.sleep(0.5)


async def one_long_text():
    async with connection() as (reader, writer):
        await send(writer, request({"prompt": "x" * 900_000, "max_tokens": 1}))
        await asyncio.wait_for(reader.read(500), 30)
    await asyncio.sleep(0.5)


# Attack, and how many of it run at once: together more than the service has connections for.
ATTACKS = {
    pipelined_then_gone: 4,
    gone_without_stream: 4,
    endless_trailers: 4,
    endless_chunks: 4,
    newlines: 300,
    silent: 700,
    slow_body: 150,
    never_reads: 8,
    upgrade: 2,
    big_bodies_without_a_key: 2,
    deep_json: 2,
    wrong_keys: 2,
    garbage: 2,
    large_legal_requests: 1,
    one_long_text: 1,
}


async def repeat(attack, rounds):
    while True:
        with contextlib.suppress(*GONE):
            await attack()
        rounds[attack.__name__] = rounds.get(attack.__name__, 0) + 1
        await asyncio.sleep(0.05)


async def main():
    rounds = {}
    # Kept, because the loop itself holds its tasks weakly.
    held = [
        asyncio.create_task(repeat(attack, rounds)) for attack, count in ATTACKS.items() for _ in range(count)
    ]
    await asyncio.sleep(SECONDS)
    assert len(held) == sum(ATTACKS.values())
    print(json.dumps(rounds), flush=True)
    # Not by cancelling a thousand tasks, some of which would wait for sockets: the kernel closes them all.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
