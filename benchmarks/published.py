"""Published step times and memory that the planner's fit and tests use, as data.

Sources: Megatron-LM, SC21, Table 1 (arXiv 2104.04473): teraflops per GPU, which count recomputation; batch
per forward pass and virtual stages from Megatron-LM's scripts for that table. Korthikanti et al. 2022, Table 5
and Figure 1 (arXiv 2205.05198): seconds with full recomputation, and with sequence parallelism and selective
recomputation; utilisation; memory. MT-NLG (arXiv 2201.11990): seconds of 530B on three numbers of GPUs.
"""

from __future__ import annotations

from typing import NamedTuple

SEQUENCE_LENGTH, VOCABULARY = 2048, 51200
ACCELERATOR = "a100-80gb"


class Megatron(NamedTuple):
    """A row of SC21's Table 1."""

    billions: float
    heads: int
    hidden: int
    layers: int
    devices: int
    global_batch: int
    layout: str
    teraflops: float


SC21 = (
    Megatron(1.7, 24, 2304, 24, 32, 512, "data=32,micro_batch=16,recompute=full", 137),
    Megatron(7.5, 32, 4096, 36, 128, 512, "data=32,tensor=4,micro_batch=16,recompute=full", 142),
    Megatron(39.1, 64, 8192, 48, 512, 1536, "data=32,tensor=8,pipeline=2,micro_batch=4,recompute=full", 138),
    Megatron(
        145.6,
        96,
        12288,
        80,
        1536,
        2304,
        "data=24,tensor=8,pipeline=8,virtual=2,micro_batch=2,recompute=full,schedule=interleaved",
        148,
    ),
    Megatron(
        529.6,
        128,
        20480,
        105,
        2520,
        2520,
        "data=9,tensor=8,pipeline=35,virtual=3,micro_batch=1,recompute=full,schedule=interleaved",
        163,
    ),
)


class Korthikanti(NamedTuple):
    """`layout` is without recomputation. Memory in GiB: weights, gradients and optimizer; activations."""

    billions: float
    heads: int
    hidden: int
    layers: int
    devices: int
    global_batch: int
    layout: str
    full_seconds: float
    selective_seconds: float
    mfu: float
    hfu: float
    states_gib: float
    activations_gib: float
    selective_gib: float


KORTHIKANTI = (
    Korthikanti(
        22, 64, 6144, 48, 8, 4, "tensor=8,micro_batch=4", 1.42, 1.10, 41.5, 43.7, 45.5625, 59.25, 9.5625
    ),
    Korthikanti(
        175,
        96,
        12288,
        96,
        64,
        64,
        "tensor=8,pipeline=8,virtual=3,micro_batch=1,schedule=interleaved",
        18.13,
        13.75,
        51.4,
        52.8,
        45.5625,
        66.84375,
        12.3515625,
    ),
    Korthikanti(
        530,
        128,
        20480,
        105,
        280,
        280,
        "tensor=8,pipeline=35,virtual=3,micro_batch=1,schedule=interleaved",
        49.05,
        37.83,
        56.0,
        57.0,
        31.640625,
        114.0234,
        23.0762,
    ),
    Korthikanti(
        1000,
        160,
        25600,
        128,
        512,
        512,
        "tensor=8,pipeline=64,micro_batch=1",
        94.42,
        71.49,
        56.3,
        57.0,
        32.958984,
        131.25,
        26.5625,
    ),
)

# Devices and seconds of MT-NLG 530B: 1,920 sequences, tensor=8, pipeline=35.
MT_NLG = ((2240, 60.1), (2800, 50.2), (3360, 44.4))
