"""What this machine is, as data: it goes beside every measured figure and decides whether a run may be resumed."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import msgspec


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    system: str
    processor: str
    cores: tuple[int, ...]
    memory_bytes: int
    bf16: bool
    accelerator: str | None = None

    @property
    def kind(self) -> tuple[str, str, int, bool, str | None]:
        """What figures of speed depend on: two machines of a kind give the same ones."""
        return self.system, self.processor, len(self.cores), self.bf16, self.accelerator

    def __str__(self) -> str:
        return (
            f"{self.processor}, {len(self.cores)} cores, {self.memory_bytes / 2**30:.0f} GiB, {self.system}"
        )


def _cpuinfo() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {key.strip(): value.strip() for key, colon, value in lines if colon}


def usable_cores() -> tuple[int, ...]:
    """The cores this process may run on, which in a container are often fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@cache
def this_machine() -> Hardware:
    info = _cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine()
    family, model = info.get("cpu family"), info.get("model")
    if family and model:
        name = f"{name} (family {family} model {model})"
    flags = set(info.get("flags", "").split())
    return Hardware(
        system=f"{platform.system()} {platform.machine()}",
        processor=name,
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        bf16=bool(flags & {"avx512_bf16", "amx_bf16"}),
    )
