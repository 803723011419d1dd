"""Starts a service and stops it: the gateway by exec, its socket bound here, so a taken port is told at once.

The gateway's stdin is our lifeline: it ends when this process does, however that happens, and its workers
with it. Torch-free. Holds no secret: keys are made in the store.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from trimtab.service import configuration, limits
from trimtab.service.configuration import GatewayConfiguration, ServedModel
from trimtab.service.cors import check_origins
from trimtab.spec import processes
from trimtab.spec.errors import EngineError, UsageError

__all__ = ["ServedModel", "Service", "start"]

# Longer than the gateway gives its workers to drain.
STOP_SECONDS = 30.0
# A Unix socket's path may have about 100 characters; a name is put behind the folder's.
_MAX_FOLDER_LENGTH = 70


class _News(msgspec.Struct):
    event: str
    message: str = ""
    usage: bool = False


class Service:
    """A running service. Close it (or use it as a context manager); else it ends with this process."""

    def __init__(
        self, gateway: subprocess.Popen[bytes], url: str, home: Path, runtime: Path, models: tuple[str, ...]
    ) -> None:
        """`url` has no path; `models` are the names that it serves."""
        self._gateway, self.url, self._home, self._runtime = gateway, url, home, runtime
        self.models = models

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def create_key(self, name: str) -> str:
        """A new key for this service's home, which may infer and read."""
        from trimtab.security.keys import KeyRing

        return KeyRing(self._home).create(name).key

    def pids(self) -> list[int]:
        """The gateway and everything it started: what the service's memory is counted on."""
        import psutil

        if self._gateway.poll() is not None:
            return []
        try:
            gateway = psutil.Process(self._gateway.pid)
            return [gateway.pid, *(child.pid for child in gateway.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def wait(self) -> int:
        """Until the gateway has ended; its exit status."""
        return self._gateway.wait()

    def stop(self, *, seconds: float = limits.DRAIN_SECONDS) -> int:
        """Let running answers end, for at most `seconds`; then end it all. The gateway's exit status."""
        if self._gateway.poll() is None:
            self._gateway.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._gateway.wait(seconds + STOP_SECONDS)
            finally:
                # Also when we are interrupted while we wait.
                self._kill()
        for pipe in (self._gateway.stdin, self._gateway.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        shutil.rmtree(self._runtime, ignore_errors=True)
        return self._gateway.wait()

    def _kill(self) -> None:
        import psutil

        for pid in self.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()

    def _wait_until_ready(self) -> None:
        """Raises `EngineError` with the reason of the worker that failed, `UsageError` for a model that is refused."""
        line = self._gateway.stdout.readline() if self._gateway.stdout else b""
        if not line:
            status = self.stop(seconds=0)
            raise EngineError(f"The service ended with status {status} before it was ready.")
        news = msgspec.json.decode(line, type=_News)
        if news.event != "ready":
            self.stop(seconds=0)
            raise UsageError(news.message) if news.usage else EngineError(news.message)


def start(
    models: Sequence[ServedModel],
    *,
    home: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    gateway_cores: tuple[int, ...] = (),
    insecure_http: bool = False,
    cors_origins: Sequence[str] = (),
    trust_markup: bool = False,
    dead_seconds: float = limits.DEAD_SECONDS,
    log: IO[bytes] | int | None = None,
) -> Service:
    """Start a service and wait until every model is loaded. Port 0 takes a free one.

    Web pages of `cors_origins` may call it from a browser; "*" means all pages. With `trust_markup`, a chat's
    messages may write control tokens themselves. `log` is where the gateway's stderr goes (None = ours). Raises
    `UsageError` for an address that cannot be bound or must not be and for a model that cannot be served,
    `EngineError` when a worker does not start.
    """
    _check_models(models)
    _check_host(host, insecure_http=insecure_http)
    origins = check_origins(tuple(cors_origins))
    with _bind(host, port) as listener:
        url = _url(listener)
        runtime = _runtime_folder()
        settings = GatewayConfiguration(
            models=tuple(models),
            home=home,
            runtime=runtime,
            cores=gateway_cores,
            cors_origins=origins,
            dead_seconds=dead_seconds,
            trust_markup=trust_markup,
        )
        path = runtime / "gateway.json"
        configuration.save(settings, path)
        gateway = processes.start(
            "gateway",
            ["--configuration", str(path), "--socket", str(listener.fileno())],
            environment={"TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(listener.fileno(),),
            # Ctrl-C is for us; we tell the gateway.
            start_new_session=True,
        )
    service = Service(gateway, url, home, runtime, tuple(model.name for model in models))
    try:
        service._wait_until_ready()  # noqa: SLF001 - the other half of this function
    except BaseException:
        service.stop(seconds=0)
        raise
    return service


def _check_models(models: Sequence[ServedModel]) -> None:
    names = [model.name for model in models]
    twice = {name for name in names if names.count(name) > 1}
    if not names or twice:
        raise UsageError(
            f"The model {min(twice)!r} is named twice." if twice else "No model is named.",
            remedy="Name each model once.",
        )


def _check_host(host: str, *, insecure_http: bool) -> None:
    if insecure_http or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(
            f"{host!r} is not this machine's loopback, and keys would travel unencrypted.",
            where="--host",
            remedy="Put a TLS proxy in front of 127.0.0.1, or say --insecure-http if the network is trusted.",
        )


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, OverflowError) as error:
        raise UsageError(f"{host!r} is not an address of this machine: {error}.", where="--host") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # A second service on the same port is refused now, not when it listens.
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"Port {port} on {host} cannot be used: {error.strerror or error}.",
            where="--port",
            remedy="Stop what uses it, or choose another with --port (0 takes a free one).",
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _runtime_folder() -> Path:
    """Private (0700), and short enough for a Unix socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="trimtab-"))
    if len(str(folder)) > _MAX_FOLDER_LENGTH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="trimtab-", dir="/tmp"))
    return folder
