"""The process "worker": one engine behind one Unix socket.

It listens before it loads, so that its starter can connect at once and then waits for `Hello`; it says `Hello`
when it is loaded and warm, or one `Fault` without id. It pins itself before it loads, so that threads and memory
are made on its own cores. Exit codes: 0 after `Drain` or when the gateway closed the connection, else not 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from trimtab.engines.base import Engine
from trimtab.engines.builds import ensure_build
from trimtab.engines.connection import Connection, ConnectionLostError, accept, listen
from trimtab.engines.loop import Loop
from trimtab.engines.quiet import captured_output, quiet_libraries
from trimtab.engines.registry import load_engine
from trimtab.spec import lifeline
from trimtab.spec.errors import EXIT_DONE, EXIT_FAILED, EngineError, TrimtabError, UsageError
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.wire import Fault, Hello, WireError, encode

_CONNECT_SECONDS = 60.0
# Long enough for a starter that connects as soon as it sees the socket.
_TELL_SECONDS = 5.0


def main(arguments: list[str] | None = None) -> int:
    lifeline.die_with_parent()
    parser = argparse.ArgumentParser(prog="trimtab-worker", description="Run one engine behind a socket.")
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--serving", type=Path, required=True, help="serving.json")
    parser.add_argument("--address", required=True, help="unix:/path.sock")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--cores", default="", help="core numbers, such as 0,1; empty: not pinned")
    given = parser.parse_args(arguments)
    # Ctrl-C goes to the whole terminal group; the gateway decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quiet_libraries()
    try:
        serving = _read_serving(given.serving)
        _pin(given.cores)
        engine, connection = _load(given, serving)
    except TrimtabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return _serve(engine, connection, serving)


def _read_serving(path: Path) -> ServingConfiguration:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ServingConfiguration)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"the serving configuration cannot be read: {error}.", where=str(path)) from error


def _pin(cores: str) -> None:
    """Bind this process to its cores: threads started so far (numpy's) and all to come. Linux only."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    try:
        chosen = {int(core) for core in cores.split(",")}
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), chosen)
    except (ValueError, OSError) as error:
        raise UsageError(f"cannot run on cores {cores!r}: {error}.", where="cores") from error


def _load(given: argparse.Namespace, serving: ServingConfiguration) -> tuple[Engine, Connection]:
    """Listen, load, greet. Whoever connected is told why if loading fails."""
    listener = listen(given.address)
    path = Path(given.address.removeprefix("unix:"))
    try:
        build = ensure_build(given.artifact, serving, given.home)
        began = time.monotonic()
        with captured_output():
            engine = load_engine(build, serving)
    except TrimtabError as error:
        _tell(accept(listener, path, _TELL_SECONDS), error)
        raise
    load_seconds = time.monotonic() - began
    connected = accept(listener, path, _CONNECT_SECONDS)
    if connected is None:
        raise EngineError(f"nobody connected within {_CONNECT_SECONDS:.0f} s.", where=given.address)
    connection = Connection(connected)
    connection.send(
        Hello(
            engine=serving.engine,
            capabilities=engine.capabilities,
            content_digest=engine.content_digest,
            pid=os.getpid(),
            load_seconds=load_seconds,
        )
    )
    return engine, connection


def _tell(connected: socket.socket | None, error: TrimtabError) -> None:
    """Send a fault of the whole worker to a gateway that may not be there."""
    if connected is None:
        return
    with connected, contextlib.suppress(OSError):
        connected.settimeout(_TELL_SECONDS)
        connected.sendall(encode(Fault(message=str(error), code="failed")))


def _serve(engine: Engine, connection: Connection, serving: ServingConfiguration) -> int:
    """The exit code, once there is nothing more to do."""
    loop = Loop(engine, connection, max_requests=serving.max_batch + serving.max_queue)
    signal.signal(signal.SIGTERM, lambda _number, _frame: loop.drain())
    try:
        loop.run()
    except ConnectionLostError as error:
        if not error.closed:
            print(f"stopping: {error}.", file=sys.stderr)
        return EXIT_DONE if error.closed else EXIT_FAILED
    except WireError as error:
        print(f"stopping: the gateway broke the protocol: {error}.", file=sys.stderr)
        return EXIT_FAILED
    except EngineError as error:
        print(error, file=sys.stderr)
        with contextlib.suppress(ConnectionLostError):
            connection.send(Fault(message=str(error), code="failed"))
        return error.exit_code
    finally:
        connection.close()
        engine.close()
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
