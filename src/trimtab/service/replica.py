"""One place of a model, always taken by a living worker: watched, replaced when it dies, drained at the end.

A worker that shows neither messages nor CPU time is killed and replaced; a crash likewise, with growing
pauses.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trimtab.service import limits
from trimtab.service.configuration import ServedModel
from trimtab.service.connection import Connection
from trimtab.service.pulse import Pulse
from trimtab.service.worker_process import Spawn, WorkerProcess, spawn_worker
from trimtab.spec.errors import EngineError
from trimtab.spec.wire import Hello
from trimtab.store.ownership import check_owned

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

WATCH_SECONDS = 0.5
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# A worker that lived this long was healthy: the next failure starts with the shortest pause again.
HEALTHY_SECONDS = 60.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica runs: `runtime` holds its files, `cores` pin it (empty = left as it is)."""

    home: Path
    runtime: Path
    label: str
    cores: tuple[int, ...] = ()
    dead_seconds: float = limits.DEAD_SECONDS


class Replica:
    def __init__(
        self, model: ServedModel, place: Place, log: FilteringBoundLogger, *, spawn: Spawn = spawn_worker
    ) -> None:
        self._model, self._place, self._log = model, place, log.bind(worker=place.label)
        self._spawn = spawn
        self._worker: WorkerProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._closing = False
        self._lives = 0
        self.connection: Connection | None = None

    @property
    def restarts(self) -> int:
        return max(0, self._lives - 1)

    async def start(self) -> Hello:
        """Start a worker and wait until its build is loaded; from then on keep one running.

        Raises `EngineError`.
        """
        hello = await self._load()
        self._start_supervisor()
        return hello

    async def close(self, *, drain_seconds: float) -> None:
        """Let the worker finish what runs, for so long at most; then see it gone."""
        self._closing = True
        if self.connection is not None and self._worker is not None:
            self.connection.drain()
            await self._worker.exited(drain_seconds)
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        await self._end()

    async def _load(self) -> Hello:
        self._lives += 1
        socket = self._place.runtime / f"{self._place.label}.{self._lives}.sock"
        self._worker = WorkerProcess(self._spawn(self._arguments(socket)), socket)
        try:
            connection, hello = await self._worker.load()
        except BaseException as error:
            await self._end()
            if isinstance(error, EngineError):
                raise EngineError(f"The worker of {self._model.name!r} did not start: {error}") from error
            raise
        self.connection = connection
        return hello

    def _arguments(self, socket: Path) -> list[str]:
        # Cleaners of /tmp may have taken it in the meantime.
        self._place.runtime.mkdir(mode=0o700, exist_ok=True)
        check_owned(self._place.runtime)
        serving = self._place.runtime / f"{self._place.label}.json"
        serving.write_bytes(msgspec.json.encode(self._model.serving))
        # The mock engine looks at no artifact; any folder stands for one.
        artifact = self._model.artifact or self._place.runtime
        arguments = [
            "--artifact",
            str(artifact),
            "--serving",
            str(serving),
            "--address",
            f"unix:{socket}",
            "--home",
            str(self._place.home),
        ]
        if self._place.cores:
            arguments += ["--cores", ",".join(map(str, self._place.cores))]
        return arguments

    def _start_supervisor(self) -> None:
        if self._closing:
            return
        self._supervisor = asyncio.create_task(self._supervise())
        self._supervisor.add_done_callback(self._on_supervisor_end)

    def _on_supervisor_end(self, task: asyncio.Task[None]) -> None:
        """The last defence: without a supervisor this place would stay empty for ever."""
        if self._closing:
            return
        asyncio.get_running_loop().call_later(FIRST_PAUSE_SECONDS, self._start_supervisor)
        error = None if task.cancelled() else task.exception()
        self._log.error("the worker's supervisor ended and is started again", reason=repr(error))

    async def _supervise(self) -> None:
        """Until closed: whatever goes wrong (no descriptor, no memory, no process id) is tried again."""
        loop, pause = asyncio.get_running_loop(), FIRST_PAUSE_SECONDS
        while not self._closing:
            begun = loop.time()
            try:
                await self._live()
            except Exception as error:  # noqa: BLE001 - who gives up here leaves the place empty for ever
                self._log.warning("worker could not be watched", reason=repr(error))
            if self._closing:
                return
            pause = FIRST_PAUSE_SECONDS if loop.time() - begun > HEALTHY_SECONDS else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            try:
                await self._end()
                await self._load()
                self._log.warning("worker is back", restarts=self.restarts)
            except Exception as error:  # noqa: BLE001 - as above
                reason = str(error) if isinstance(error, EngineError) else repr(error)
                self._log.warning("worker did not start", reason=reason, next_try_seconds=pause)

    async def _live(self) -> None:
        """Watch the worker that is there, if one is, until it is lost; leave nothing of it."""
        if self.connection is None or self._worker is None:
            return
        await self._watch(self._worker, self.connection)
        if not self._closing:
            reason = self._worker.reason()
            await self._end()
            self._log.warning("worker lost", reason=reason)

    async def _watch(self, worker: WorkerProcess, connection: Connection) -> None:
        """Returns when the connection is lost, and sees to it that a dead worker's is."""
        loop = asyncio.get_running_loop()
        pulse = Pulse(worker.pid, loop.time())
        while not connection.lost.done():
            await asyncio.wait({connection.lost}, timeout=WATCH_SECONDS)
            still = pulse.standstill(connection.frames, loop.time())
            if still > self._place.dead_seconds and not connection.lost.done():
                connection.failure = f"neither a message nor CPU time for {still:.1f} s"
                worker.kill()
                connection.close()

    async def _end(self) -> None:
        worker, self.connection = self._worker, None
        if worker is not None:
            await worker.end()
            self._worker = None
