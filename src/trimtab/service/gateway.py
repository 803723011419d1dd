"""Process "gateway": HTTP in front of the workers. Arguments: `--configuration FILE --socket FD`.

It tells its parent over stdout, in lines of JSON, when every model is ready, or why not. SIGTERM (or the
end of stdin, when the parent died) ends it: no new connections, running answers end, workers drain, exit 0.
Whatever still runs then, in a thread or in the loop itself, it is gone within a bound: the kernel's timer sees to it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import io
import logging
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog
import uvicorn

from trimtab.security.keys import KeyRing
from trimtab.security.verifier import BUSY_SECONDS, Verifier
from trimtab.service import configuration, limits
from trimtab.service.app import Application
from trimtab.service.assembly import make_model
from trimtab.service.backend import Backend
from trimtab.service.configuration import GatewayConfiguration
from trimtab.service.cors import Cors
from trimtab.service.descriptors import reserve_descriptors
from trimtab.service.protocol import BoundedProtocol
from trimtab.spec import lifeline
from trimtab.spec.errors import EXIT_FAILED, TrimtabError, UsageError
from trimtab.spec.hardware import usable_cores


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line to the parent."""

    event: str
    message: str = ""
    usage: bool = False


class _Server(uvicorn.Server):
    """uvicorn raises the signal again after a graceful end, which would not exit 0; ours is handled below."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Log(io.TextIOBase):
    """stderr, whose reader may be gone or whose disk full: the service goes on without a log."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def make_log() -> structlog.typing.FilteringBoundLogger:
    """JSON lines on stderr: events of workers and faults of ours. Never a prompt, an answer or a key."""
    return structlog.wrap_logger(
        structlog.PrintLogger(_Log()),  # pyrefly: ignore[bad-argument-type]
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )


def _tell(event: str, message: str = "", *, usage: bool = False) -> None:
    with contextlib.suppress(BrokenPipeError):
        news = News(event=event, message=message, usage=usage)
        sys.stdout.buffer.write(msgspec.json.encode(news) + b"\n")
        sys.stdout.buffer.flush()


def _report_keys(log: structlog.typing.FilteringBoundLogger, fault: str | None) -> None:
    if fault is None:
        log.warning("keys can be read again")
    else:
        log.error("keys cannot be read: those known stay valid", reason=fault)


class Gateway:
    def __init__(self, settings: GatewayConfiguration) -> None:
        self._settings = settings
        log, cores = make_log(), usable_cores()
        workers = sum(model.serving.replicas for model in settings.models)
        # A class, because uvicorn makes the connections.
        protocol = type(
            "Protocol",
            (BoundedProtocol,),
            {"max_connections": reserve_descriptors(len(settings.models), workers)},
        )
        if settings.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, settings.cores)
        models = [make_model(model, settings, cores, log) for model in settings.models]
        ring = KeyRing(settings.home, busy_seconds=BUSY_SECONDS)
        keys = Verifier(ring, lambda fault: _report_keys(log, fault))
        self.backend = Backend({model.name: model for model in models}, keys)
        self._server = _Server(
            uvicorn.Config(
                Application(self.backend, cors=Cors(settings.cors_origins)),
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=int(settings.drain_seconds),
            )
        )

    @property
    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """That of uvloop, where it is installed."""
        return self._server.config.get_loop_factory()

    async def run(self, listener: socket.socket) -> int:
        """Serve until told to end. The exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        parent = asyncio.create_task(self._watch_parent())
        serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        loading = asyncio.create_task(self._load())
        await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
        status = 0
        if loading.done() and not loading.result():
            status = 1
            self._end()
        await serving
        parent.cancel()
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading
        # The answers have ended; a worker that still works does so for nobody.
        seconds = 0.0 if self._server.force_exit else limits.WORKER_DRAIN_SECONDS
        await asyncio.gather(*(model.close(drain_seconds=seconds) for model in self.backend.models.values()))
        return status

    async def _load(self) -> bool:
        """Whether every model is ready."""
        try:
            await asyncio.gather(*(model.load() for model in self.backend.models.values()))
        except TrimtabError as error:
            _tell("failed", str(error))
            return False
        # What lives now lives on: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        _tell("ready")
        return True

    def _end(self, *, at_once: bool = False) -> None:
        """Once: gracefully. Again: at once."""
        self.backend.draining = True
        self._server.force_exit = at_once or self._server.should_exit
        self._server.should_exit = True
        drain = 0.0 if self._server.force_exit else self._settings.drain_seconds
        signal.setitimer(signal.ITIMER_REAL, drain + limits.END_SECONDS)

    async def _watch_parent(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        await reader.read()
        self._end(at_once=True)


def main() -> None:
    lifeline.die_with_parent(grace_seconds=limits.ORPHAN_SECONDS)
    parser = argparse.ArgumentParser(prog="gateway")
    parser.add_argument("--configuration", type=Path, required=True)
    parser.add_argument("--socket", type=int, required=True)
    arguments = parser.parse_args()
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    settings = configuration.load(arguments.configuration)
    try:
        gateway = Gateway(settings)
        listener = socket.socket(fileno=arguments.socket)
        # Never closed: that would wait for threads, and one may be in a tokenizer for minutes.
        runner = asyncio.Runner(loop_factory=gateway.loop_factory)
        status = runner.run(gateway.run(listener))
    except TrimtabError as error:
        _tell("failed", str(error), usage=isinstance(error, UsageError))
        status = error.exit_code
    except BaseException:  # noqa: BLE001 - a bug: it is told, and the end is the same
        traceback.print_exc()
        status = EXIT_FAILED
    finally:
        shutil.rmtree(settings.runtime, ignore_errors=True)
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
