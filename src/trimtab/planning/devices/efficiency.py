"""How much of a datasheet's figures is reached: the only constants of the time model that were fitted.

`REACHED` minimises the squared relative error of the step time over the five published rows of Megatron-LM's
Table 1 (SC21, arXiv 2104.04473) that `benchmarks/published.py` holds, by `fitting.fit`; nothing else was
fitted, and no other row was looked at. `benchmarks/planning_fit.py` repeats it, with the error of each row
when it is left out; a test holds the constants to it. The other constants are stated, not fitted.
"""

from __future__ import annotations

import msgspec


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """Fractions of a datasheet.

    `gemm` of the peak rate, for matrix products whose operands would cost nothing to fetch: fitted. `memory`
    of the memory's bandwidth, by element-wise kernels; `inside` and `between` of a link in a node and of a
    network port, by large collectives: stated.
    """

    gemm: float
    memory: float = 0.7
    inside: float = 0.75
    between: float = 0.7


REACHED = Reached(gemm=0.91)
# The part of a device's cores that collectives take from the computation beside them (NCCL's channels).
COMMUNICATION_CORES = 0.15
# The part of a step in which eager PyTorch keeps the device busy: launches, allocations and waits leave gaps.
EAGER_BUSY = 0.8
# What the host needs to start one kernel from eager PyTorch.
LAUNCH_SECONDS = 5e-6
INSIDE_LATENCY_SECONDS, BETWEEN_LATENCY_SECONDS = 3e-6, 1e-5
