"""On Ray: the same tasks in the workers of a Ray Train job (2.60). An adapter; Ray is imported here and nowhere else.

Ray starts, replaces and, with a range of workers, resizes; checkpoints are ours, in a folder that all machines
see, so a restarted group goes on from the last one whatever became of Ray's own. Events and the result come back
through files in that folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trimtab.parallel.launching.again import start_again
from trimtab.parallel.launching.launch import threads_of_each
from trimtab.parallel.launching.lines import Crashed, Done, Failed, Job, decode_up, encode
from trimtab.parallel.launching.pulse import RECORDER, read_beat
from trimtab.parallel.tasks import TaskName
from trimtab.spec.errors import RankLostError, UsageError
from trimtab.spec.layout import Layout

if TYPE_CHECKING:
    from trimtab.parallel.launching.choice import Launch

_EVENTS, _ANSWER, _STOP = "events.jsonl", "answer.json", "stop"
_LOOK_SECONDS = 0.2
# Ray's own default of 30 minutes hides a worker that is gone.
_COLLECTIVE_SECONDS = 120
# How long workers may take to start, imports and all; Ray's own minute is short for a busy machine.
_START_SECONDS = 300


class RayGroup:
    """Workers of a Ray cluster: the one of `RAY_ADDRESS` or of this machine, else one started for the purpose."""

    def __init__(self, launch: Launch, layout: Layout, folder: Path) -> None:
        """`folder` must be seen by all machines. Raises `UsageError` without Ray."""
        try:
            import ray
            import ray.train.torch  # found missing now rather than in the middle
        except ImportError as error:
            raise UsageError("Ray is not installed.", remedy="Install trimtab[ray].") from error
        if launch.least is not None and layout.world != layout.data:
            raise UsageError(
                f"{layout} takes {layout.world} processes and no fewer.",
                where="--processes",
                remedy="A range is for data alone.",
            )
        self._launch, self._layout, self._folder = launch, layout, folder / "ray"
        self._calls = 0
        self._started = not ray.is_initialized()
        self._quiet = ExitStack()
        if self._started:
            # The controller reads it from the driver's environment.
            os.environ.update(_environment())
            before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
            # Ray tells of workers that died on stdout, where our JSON goes; what workers say stays in its log folder.
            self._quiet.enter_context(redirect_stdout(sys.stderr))
            ray.init(
                include_dashboard=False,
                logging_level="ERROR",
                log_to_driver=False,
                runtime_env={"env_vars": _environment()},
            )
            # Ray would end this process at once, where the workers are to save first.
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(
        self,
        task: TaskName,
        job: dict[str, Any],
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Raises what the task raised, and `RankLostError` when workers were lost more often than restarts allow.

        Ctrl-C asks the workers to save and stop, and is raised when they have.
        """
        folder = self._folder / f"call-{self._calls}"
        self._calls += 1
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        fit = _Fit(lambda: self._trainer(task, job, folder).fit())
        tail = _Tail(folder / _EVENTS, on_event or (lambda _: None))
        interrupted = False
        while fit.running:
            try:
                time.sleep(_LOOK_SECONDS)
                tail.pass_on()
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted = True
                (folder / _STOP).touch()
        tail.pass_on()
        if interrupted:
            raise KeyboardInterrupt
        return self._outcome(folder, job, fit.error)

    def close(self) -> None:
        import ray

        if self._started:
            ray.shutdown()
        self._quiet.close()

    def _trainer(self, task: TaskName, job: dict[str, Any], folder: Path) -> Any:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        threads = threads_of_each(self._layout.world)
        most, least = self._layout.world, self._launch.least
        order = {"job": encode(Job(task=task, job=job | {"resume": True})).decode(), "folder": str(folder)}
        return TorchTrainer(
            _worker,
            train_loop_config=order | {"threads": threads, "hang_seconds": self._launch.hang_seconds},
            torch_config=TorchConfig(
                backend="cpu:gloo,cuda:nccl" if _has_gpus() else "gloo", timeout_s=_COLLECTIVE_SECONDS
            ),
            scaling_config=ScalingConfig(
                num_workers=most if least is None else (least, most),
                use_gpu=_has_gpus(),
                resources_per_worker=None if _has_gpus() else {"CPU": threads},
            ),
            run_config=RunConfig(
                name=folder.name,
                storage_path=str(self._folder / "runs"),
                failure_config=FailureConfig(max_failures=self._launch.restarts),
            ),
        )

    def _outcome(self, folder: Path, job: dict[str, Any], error: Exception | None) -> dict[str, Any]:
        answer = folder / _ANSWER
        if answer.exists():
            said = decode_up(answer.read_bytes())
            if isinstance(said, Failed | Crashed):
                raise said.to_error()
            if isinstance(said, Done):
                return said.result
        raise _lost(error, job)


class _Fit:
    """Ray's `fit` in a thread, so that Ctrl-C reaches us and not Ray, which would drop the workers at once."""

    def __init__(self, fit: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(fit,), name="ray", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self, fit: Callable[[], object]) -> None:
        from ray.train import TrainingFailedError

        try:
            fit()
        except TrainingFailedError as error:
            self.error = error


class _Tail:
    """New lines of a file that another process appends to."""

    def __init__(self, path: Path, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._path, self._on_event, self._read = path, on_event, 0

    def pass_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                self._on_event(msgspec.json.decode(line, type=dict))


def _worker(order: dict[str, Any]) -> None:
    """In each Ray worker: join what Ray has set up, do the job; rank 0 writes events and the answer."""
    import torch.distributed as dist
    from ray.train import get_context
    from ray.train.torch import get_device

    from trimtab.parallel.launching.guest import work
    from trimtab.parallel.launching.lines import decode_down
    from trimtab.parallel.ranks import Ranks

    os.environ["LOCAL_WORLD_SIZE"] = str(get_context().get_local_world_size())
    ranks = Ranks(rank=dist.get_rank(), world=dist.get_world_size(), device=get_device())
    folder = Path(order["folder"])
    job = decode_down(order["job"].encode())
    if not isinstance(job, Job):
        raise TypeError("an order to a worker is a job")
    with (folder / _EVENTS).open("ab", buffering=0) as events:

        def tell(event: dict[str, Any]) -> None:
            events.write(msgspec.json.encode(event) + b"\n")

        answer = work(
            job.task,
            _resized(job.job, ranks.world),
            ranks,
            tell if ranks.first else (lambda _: None),
            (folder / _STOP).exists,
            hang_seconds=order["hang_seconds"],
        )
    if isinstance(answer, Crashed):
        # Ray starts the group again, as often as it was told to, if a worker raises.
        raise answer.to_error()
    if ranks.first or isinstance(answer, Failed):
        temporary = folder / f"{_ANSWER}.{ranks.rank}"
        temporary.write_bytes(encode(answer))
        temporary.replace(folder / _ANSWER)


def _resized(job: dict[str, Any], world: int) -> dict[str, Any]:
    """With fewer workers than the layout has replicas, fewer replicas; the global batch stays."""
    layout = msgspec.convert(job.get("layout"), Layout | None)
    if layout is None or layout.world == world:
        return job
    return job | {"layout": msgspec.to_builtins(msgspec.structs.replace(layout, data=world))}


def _lost(error: Exception | None, job: dict[str, Any]) -> RankLostError:
    """Names the worker, and its host by its last beat."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    rank, cause = next(iter(sorted(failures.items())), (None, error))
    where = None
    if rank is not None and job.get("checkpoints"):
        beats = sorted(Path(job["checkpoints"]).parent.glob("beats/*"), key=lambda path: path.stat().st_mtime)
        beat = read_beat(beats[-1], rank) if beats else None
        where = f"process {beat.pid} on {beat.host}" if beat else None
    who = f"Ray worker of rank {rank}" if rank is not None else "the Ray job"
    return RankLostError(
        f"{who} failed: {str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__}",
        where=where,
        remedy=start_again(job),
    )


def _environment() -> dict[str, str]:
    return {
        **RECORDER,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(_START_SECONDS),
    }


def _has_gpus() -> bool:
    import ray

    return bool(ray.cluster_resources().get("GPU"))
