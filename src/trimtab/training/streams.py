"""Random numbers of a step, such as dropout's: drawn anew for every step, so none need be kept in a checkpoint.

A run that goes on, in as many shares as before or not, draws what a run that never stopped would draw.
"""

from __future__ import annotations

import numpy as np
import torch


def begin_step(seed: int, step: int, stream: int) -> None:
    """Seed torch's generators, on all devices, for what step `step` (from 0) draws in stream `stream`."""
    torch.manual_seed(stream_seed(seed, step, stream))


def stream_seed(seed: int, step: int, stream: int) -> int:
    """A 64-bit seed; neighbouring arguments give unrelated ones (`numpy.random.SeedSequence`)."""
    return int(np.random.SeedSequence((seed, step, stream)).generate_state(1, np.uint64)[0])
