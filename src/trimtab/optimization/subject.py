"""What is measured: an artifact's folder with one way to serve it, and how it came to be."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from trimtab.models.info import inspect
from trimtab.spec.hardware import usable_cores
from trimtab.spec.serving import ServingConfiguration, WeightFormat
from trimtab.spec.verdict import Candidate

Role = Literal["baseline", "control", "int8_only", "candidate", "from_scratch"]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the verdict before it is measured. `serving` names engine and format; its core plan is chosen later.

    `is_loaded` is False where only quality is of interest, since another row has the same shape and format.
    """

    name: str
    role: Role
    folder: str
    serving: ServingConfiguration
    steps: tuple[str, ...] = ()
    trained_tokens: int = 0
    quick_perplexity: float | None = None
    is_loaded: bool = True

    @property
    def path(self) -> Path:
        return Path(self.folder)

    def candidate(self, *, weights_bytes: int) -> Candidate:
        info = inspect(self.path)
        return Candidate(
            name=self.name,
            role=self.role,
            shape={"layers": info.layers, "ffn": info.ffn, "kv_heads": info.kv_heads},
            parameters=info.parameters,
            weights_bytes=weights_bytes,
            serving=self.serving,
            steps=self.steps,
            trained_tokens=self.trained_tokens,
            quick_perplexity=self.quick_perplexity,
        )


def serving(weight_format: WeightFormat, *, max_batch: int = 64) -> ServingConfiguration:
    return ServingConfiguration(engine="openvino", weight_format=weight_format, max_batch=max_batch)


def core_plans(configuration: ServingConfiguration) -> dict[str, ServingConfiguration]:
    """The ways to spread a service over the usable cores: one worker on all, or one worker a core.

    Which is faster depends on the model and the machine, so both are measured (on one core they are the same).
    """
    cores = usable_cores()
    whole = msgspec.structs.replace(configuration, replicas=1, threads=len(cores), cores=(cores,))
    if len(cores) == 1:
        return {"1x1": whole}
    spread = msgspec.structs.replace(
        configuration, replicas=len(cores), threads=1, cores=tuple((core,) for core in cores)
    )
    return {f"1x{len(cores)}": whole, f"{len(cores)}x1": spread}
