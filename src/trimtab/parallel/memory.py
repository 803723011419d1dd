"""How much memory a job takes at its highest: of the device, or resident in this process."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from trimtab.parallel.ranks import Ranks

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> None:
    """What was in use before does not count from now on. Off Linux a process remembers its peak for ever."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            _CLEAR.write_text("5", encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """The most that was in use since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def fullest(ranks: Ranks) -> int:
    """The peak of the rank that uses most. Every rank must call it."""
    return int(ranks.largest(peak_bytes(ranks.device)))
