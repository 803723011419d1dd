"""Pipeline schedules in numbers: how long stages idle, and how many micro-batches they hold.

Sources: GPipe and 1F1B idle p-1 of m micro-batches; interleaving divides that by the v stages of a rank
(Narayanan et al. 2021); zero-bubble ZB-H1 idles (p-1)(F + B - W), a third of 1F1B's when F = B = W
(Qi et al. 2023).
"""

from __future__ import annotations

from trimtab.spec.layout import Layout


def idle_micro_batches(layout: Layout) -> float:
    """Idle time of a rank, in times of one micro-batch through its stages (forward and backward)."""
    idle = (layout.pipeline - 1) / layout.virtual
    return idle / 3 if layout.schedule == "zero_bubble" else idle


def bubble(layout: Layout, micro_batches: int) -> float:
    """Idle time over the time that an ideal pipeline would take."""
    return idle_micro_batches(layout) / micro_batches


def held(layout: Layout, micro_batches: int, stage: int) -> float:
    """Micro-batches whose activations rank `stage` holds at its peak, each over all the rank's layers.

    GPipe holds all; 1F1B and ZB-H1 what it takes to reach the last stage and come back; interleaving adds
    (p-1)/(p v) on the first rank (Korthikanti et al. 2022, section 4.2.3).
    """
    if layout.pipeline == 1:
        return 1.0
    if layout.schedule == "gpipe":
        return float(micro_batches)
    deep = float(min(micro_batches, layout.pipeline - stage))
    if layout.virtual == 1:
        return deep
    chunks = (layout.pipeline - stage - 1) * 2 + (layout.virtual - 1) * layout.pipeline + 1
    return min(chunks / layout.virtual, float(micro_batches))
