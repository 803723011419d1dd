"""Accelerators by name, as their makers' datasheets give them: dense rates, one direction of each link."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import msgspec

from trimtab.planning.devices.efficiency import (
    BETWEEN_LATENCY_SECONDS,
    INSIDE_LATENCY_SECONDS,
    LAUNCH_SECONDS,
    REACHED,
    Reached,
)
from trimtab.planning.devices.machine import Generation, Link, Machine
from trimtab.spec.errors import UsageError

_GIB, _GB, _TERA = 2**30, 10**9, 10**12
# A CUDA context and the collectives' buffers, before the first tensor.
_PROCESS_BYTES = int(1.5 * _GIB)


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """One datasheet. `half` and `single`: operations a second in 16 bits, and in 32 (TF32 where there is one).

    `network` is each device's share of the node's ports in the maker's own server. `sustained`: the part of its
    rate that an A100 sustains just as well, under its power limit, in large products. `attention`: what fused
    attention, forward and backward, reaches of `half` (FlashAttention-2's own figures: 55 to 70 % on A100, a
    third on H100).
    """

    memory_gib: float
    half: float
    single: float
    bandwidth: float
    link: float
    network: float
    per_node: int = 8
    generation: Generation = "fused"
    sustained: float = 1.0
    attention: float = 0.55


_A100 = Accelerator(
    memory_gib=80,
    half=312 * _TERA,
    single=156 * _TERA,
    bandwidth=2039 * _GB,
    link=300 * _GB,
    network=25 * _GB,
    generation="classic",
)
_H100 = Accelerator(
    memory_gib=80,
    half=989 * _TERA,
    single=494 * _TERA,
    bandwidth=3350 * _GB,
    link=450 * _GB,
    network=50 * _GB,
    sustained=0.8,
    attention=0.35,
)
_V100 = Accelerator(
    memory_gib=32,
    half=125 * _TERA,
    single=15.7 * _TERA,
    bandwidth=900 * _GB,
    link=150 * _GB,
    network=6.25 * _GB,
    per_node=16,
    generation="classic",
    sustained=0.9,
)
_change = msgspec.structs.replace
ACCELERATORS: Mapping[str, Accelerator] = {
    "v100-16gb": _change(_V100, memory_gib=16, network=6.25 * _GB, per_node=8),
    "v100-32gb": _V100,
    "a100-40gb": _change(_A100, memory_gib=40, bandwidth=1555 * _GB),
    "a100-80gb": _A100,
    "h100-80gb": _H100,
    "h100-pcie-80gb": _change(
        _H100, half=756 * _TERA, single=378 * _TERA, bandwidth=2000 * _GB, link=64 * _GB, network=25 * _GB
    ),
    "h200-141gb": _change(_H100, memory_gib=140, bandwidth=4800 * _GB),
    "b200-180gb": _change(
        _H100,
        memory_gib=179,
        half=2250 * _TERA,
        single=1100 * _TERA,
        bandwidth=8000 * _GB,
        link=900 * _GB,
    ),
    "l40s-48gb": Accelerator(
        memory_gib=45,
        half=362 * _TERA,
        single=183 * _TERA,
        bandwidth=864 * _GB,
        link=32 * _GB,
        network=12.5 * _GB,
        sustained=0.7,
    ),
    "mi300x-192gb": Accelerator(
        memory_gib=192,
        half=1307 * _TERA,
        single=653 * _TERA,
        bandwidth=5300 * _GB,
        link=448 * _GB,
        network=50 * _GB,
        sustained=0.65,
        attention=0.3,
    ),
}
_SHORT = {
    "v100": "v100-32gb",
    "a100": "a100-80gb",
    "h100": "h100-80gb",
    "h200": "h200-141gb",
    "b200": "b200-180gb",
    "l40s": "l40s-48gb",
    "mi300x": "mi300x-192gb",
}


def accelerator(name: str, *, where: str) -> Accelerator:
    """By name, or by the short one. Raises `UsageError` with the nearest."""
    wanted = name.lower()
    wanted = _SHORT.get(wanted, wanted)
    if wanted in ACCELERATORS:
        return ACCELERATORS[wanted]
    near = difflib.get_close_matches(wanted, [*ACCELERATORS, *_SHORT], n=1)
    raise UsageError(
        f"{name!r} is no accelerator that is known.",
        where=where,
        remedy=(f"Did you mean {near[0]!r}? " if near else "")
        + f"Known: {', '.join(ACCELERATORS)}; or the file of a measured profile.",
    )


def machine_of(
    sheet: Accelerator,
    *,
    name: str,
    single_precision: bool = False,
    per_node: int | None = None,
    link: float | None = None,
    network: float | None = None,
    reached: Reached = REACHED,
) -> Machine:
    """A datasheet → what the cost models ask. `link` and `network` in bytes a second and direction."""
    peak = sheet.single if single_precision else sheet.half
    return Machine(
        name=name,
        peak_flops=peak,
        gemm_flops=peak * reached.gemm * sheet.sustained,
        attention_flops=peak * sheet.attention,
        memory_bytes=int(sheet.memory_gib * _GIB),
        memory_bytes_per_second=sheet.bandwidth * reached.memory,
        inside=Link(
            latency_seconds=INSIDE_LATENCY_SECONDS, bytes_per_second=(link or sheet.link) * reached.inside
        ),
        between=Link(
            latency_seconds=BETWEEN_LATENCY_SECONDS,
            bytes_per_second=(network or sheet.network) * reached.between,
        ),
        per_node=per_node or sheet.per_node,
        launch_seconds=LAUNCH_SECONDS,
        process_bytes=_PROCESS_BYTES,
        generation=sheet.generation,
    )
