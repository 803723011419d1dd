"""float32 or bf16 for matrix products: whichever this device is faster at, found by timing both.

Processors without bf16 units emulate it far slower than float32, so the name of a type says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Literal

import torch

from trimtab.parallel.ranks import Ranks

PrecisionName = Literal["float32", "bf16"]
_SIZE, _REPEATS = 512, 3
# bf16 costs some exactness, so it must be clearly faster.
_MUST_GAIN = 1.3


def choose_precision(
    wanted: Literal["auto", "float32", "bf16"],
    ranks: Ranks,
    begun: Callable[[], PrecisionName | None] = lambda: None,
) -> PrecisionName:
    """`wanted`; or for `auto` what the job was `begun` in, else the faster one. Rank 0 decides for all.

    A busy moment, or another machine, must not change it in the middle of a job.
    """
    if wanted != "auto":
        return wanted
    choice = torch.zeros(1, device=ranks.device)
    if ranks.first:
        choice += (begun() or _faster(ranks.device)) == "bf16"
    return "bf16" if ranks.broadcast(choice).item() else "float32"


def _faster(device: torch.device) -> PrecisionName:
    return "bf16" if _gain(device) >= _MUST_GAIN else "float32"


@cache
def _gain(device: torch.device) -> float:
    """How many times faster bf16 is. Measured once a process."""
    return _seconds(torch.float32, device) / _seconds(torch.bfloat16, device)


def _seconds(dtype: torch.dtype, device: torch.device) -> float:
    """Best of a few runs of one square product, after a warm-up."""
    left = torch.ones(_SIZE, _SIZE, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        (left @ left)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return best
