"""Process "gateway": HTTP in front of the workers. Arguments: `--configuration FILE --socket FD`.

It tells its parent over stdout, in lines of JSON, when every model is ready, or why not. SIGTERM (or the
end of stdin, when the parent died) ends it: no new connections, running answers end, workers drain, exit 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import structlog
import uvicorn

from trimtab.security.keys import KeyRing
from trimtab.service import configuration, limits
from trimtab.service.app import Application
from trimtab.service.assembly import make_model
from trimtab.service.backend import Backend
from trimtab.service.configuration import GatewayConfiguration
from trimtab.service.cors import Cors
from trimtab.service.protocol import BoundedProtocol
from trimtab.spec.errors import TrimtabError
from trimtab.spec.hardware import usable_cores


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line to the parent."""

    event: str
    message: str = ""


class _Server(uvicorn.Server):
    """uvicorn raises the signal again after a graceful end, which would not exit 0; ours is handled below."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_log() -> structlog.typing.FilteringBoundLogger:
    """JSON lines on stderr: events of workers and faults of ours. Never a prompt, an answer or a key."""
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
    )


def _tell(event: str, message: str = "") -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(News(event=event, message=message)) + b"\n")
        sys.stdout.buffer.flush()


class Gateway:
    def __init__(self, settings: GatewayConfiguration) -> None:
        self._settings = settings
        log, cores = make_log(), usable_cores()
        if settings.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, settings.cores)
        models = [make_model(model, settings, cores, log) for model in settings.models]
        self.backend = Backend({model.name: model for model in models}, KeyRing(settings.home))
        self._server = _Server(
            uvicorn.Config(
                Application(self.backend, cors=Cors(settings.cors_origins)),
                http=BoundedProtocol,
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
        lifeline = asyncio.create_task(self._watch_parent())
        serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        loading = asyncio.create_task(self._load())
        await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
        status = 0
        if loading.done() and not loading.result():
            status = 1
            self._end()
        await serving
        lifeline.cancel()
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

    def _end(self) -> None:
        """Once: gracefully. Again: at once."""
        self.backend.draining = True
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True

    async def _watch_parent(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        await reader.read()
        self._server.force_exit = True
        self._end()


def main() -> None:
    parser = argparse.ArgumentParser(prog="gateway")
    parser.add_argument("--configuration", type=Path, required=True)
    parser.add_argument("--socket", type=int, required=True)
    arguments = parser.parse_args()
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    settings = configuration.load(arguments.configuration)
    try:
        gateway = Gateway(settings)
        listener = socket.socket(fileno=arguments.socket)
        with asyncio.Runner(loop_factory=gateway.loop_factory) as runner:
            status = runner.run(gateway.run(listener))
    except TrimtabError as error:
        _tell("failed", str(error))
        status = error.exit_code
    finally:
        shutil.rmtree(settings.runtime, ignore_errors=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
