"""What the planner expects of a training job on this machine, from its calibration; and how that compared.

Torch-free. Without a calibration (`trimtab doctor --calibrate`) nothing is expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trimtab.models.planned import planned
from trimtab.planning.training.calibrated import calibrated_machine
from trimtab.planning.training.division import as_run
from trimtab.planning.training.job import Job, Precision
from trimtab.planning.training.plan import Plan, Scorer
from trimtab.spec.clock import now
from trimtab.spec.errors import TrimtabError
from trimtab.spec.hardware import this_machine
from trimtab.spec.profile import Comparison, Profile, Quantity, load_profile
from trimtab.store.profiles import append_comparisons, machine_profile_path
from trimtab.training.job import TrainJob

_PRECISIONS: Mapping[str, Precision] = {"float32": "fp32", "bf16": "mixed"}


def calibration(home: Path) -> Profile | None:
    """What was measured of this machine, if it was; a home on shared storage may hold another's."""
    path = machine_profile_path(home)
    profile = load_profile(path) if path.exists() else None
    return profile if profile and profile.hardware.kind == this_machine().kind else None


def planning_job(job: TrainJob, profile: Profile, *, devices: int, precision: str) -> Job:
    """The planner's record of a job. Raises what an odd model raises, `UsageError` for a precision not measured."""
    return Job(
        architecture=planned(Path(job.model) / "config.json"),
        machine=calibrated_machine(profile, single_precision=precision == "float32"),
        devices=devices,
        sequence_length=job.sequence_length,
        global_batch=job.batch,
        precision=_PRECISIONS[precision],
        optimizer=job.optimizer,
        # Ours is eager torch under every layout.
        software="torch",
    )


def expect(job: TrainJob, profile: Profile, *, precision: str) -> Plan | None:
    """None for what the planner does not know: distillation, compiled layers, weights in host memory, other models,
    another number of ranks than measured.

    Ranks of a CPU share its cores, so rates hold for the number of ranks that they were measured with.
    """
    layout = job.layout_for(profile.per_node)
    if job.teacher is not None or job.compile or job.offload or layout.world != profile.per_node:
        return None
    try:
        planner = Scorer(planning_job(job, profile, devices=layout.world, precision=precision))
    except TrimtabError:
        return None
    plan = planner.plan(as_run(layout, job.batch))
    return plan if plan.step_seconds is not None else None


def remember(
    home: Path, model: str, plan: Plan, *, step_seconds: float, peak_memory_bytes: int | None
) -> None:
    """Keep predicted beside measured in the calibration, for `trimtab doctor` to tell and to refit."""
    pairs: list[tuple[Quantity, float | None, float]] = [("step_seconds", plan.step_seconds, step_seconds)]
    if peak_memory_bytes is not None and plan.memory_bytes is not None:
        pairs.append(("peak_memory_bytes", plan.memory_bytes.total, peak_memory_bytes))
    append_comparisons(
        home,
        [
            Comparison(
                layout=str(plan.layout),
                quantity=quantity,
                predicted=float(predicted),
                measured=float(measured),
                model=model,
                when=now(),
            )
            for quantity, predicted, measured in pairs
            if predicted and measured
        ],
    )
