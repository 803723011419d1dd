"""What calibration measured of a machine, as data: planning takes it where it else takes an accelerator's datasheet.

`trimtab doctor --calibrate` writes it, training appends what it predicted and measured, planning reads it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from trimtab.spec.errors import UsageError
from trimtab.spec.hardware import Hardware
from trimtab.spec.layout import Layout

Quantity = Literal["step_seconds", "peak_memory_bytes"]
Operation = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"]


class GemmSample(msgspec.Struct, frozen=True, kw_only=True):
    """One matrix product (m, k) × (k, n): the median time of a call."""

    dtype: str
    m: int
    n: int
    k: int
    seconds: float

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k


class CollectiveRate(msgspec.Struct, frozen=True, kw_only=True):
    """A collective on a ring of `ranks`: each of its steps costs `latency_seconds`, and each rank sends what the
    algorithm must send at `bytes_per_second` (the "bus bandwidth", so that it holds for other group sizes).
    """

    operation: Operation
    backend: str
    ranks: int
    latency_seconds: float
    bytes_per_second: float


class StepSample(msgspec.Struct, frozen=True, kw_only=True):
    """A training step of a small Llama (tied, AdamW, float32) under one layout: what no single operation shows. `batch`
    counts sequences over all ranks. `peak_bytes`: the most that a rank's process held, 0 where it was not looked at.
    """

    layout: Layout
    layers: int
    hidden: int
    heads: int
    ffn: int
    vocabulary: int
    sequence_length: int
    batch: int
    seconds: float
    peak_bytes: int = 0


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what was predicted, and what was measured."""

    layout: str
    quantity: Quantity
    predicted: float
    measured: float
    model: str = ""
    when: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """One machine, `per_node` devices of it. Rates are of one device, with the threads that one rank has.

    `launch_seconds` is the host's cost of one operation, `step_seconds` that of one training step. `overlap`:
    which part of a collective runs beside computation (0 on a CPU). `memory_factor`: reserved ÷ predicted.
    """

    name: str
    hardware: Hardware
    measured_at: str
    per_node: int
    memory_bytes: int
    memory_bytes_per_second: float
    gemm: tuple[GemmSample, ...]
    collectives: tuple[CollectiveRate, ...] = ()
    launch_seconds: float = 0.0
    step_seconds: float = 0.0
    overlap: float = 0.0
    process_bytes: int = 0
    steps: tuple[StepSample, ...] = ()
    memory_factor: float = 1.0
    comparisons: tuple[Comparison, ...] = ()


def load_profile(path: Path) -> Profile:
    """Raises `UsageError` for a file that is missing or no profile."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except OSError as error:
        raise UsageError(
            "there is no such profile.", where=str(path), remedy="Measure this machine: doctor --calibrate."
        ) from error
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"not a profile: {error}.", where=str(path), remedy="Measure again: doctor --calibrate."
        ) from error


def save_profile(profile: Profile, path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=2))
    temporary.replace(path)
