"""A script's own function in several processes of this machine; the launcher of jobs is `parallel.launching.launch`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.multiprocessing

from trimtab.parallel.launching.launch import loopback
from trimtab.parallel.ranks import Ranks, join, leave
from trimtab.spec.hardware import usable_cores
from trimtab.spec.layout import Layout


def spawn(function: Callable[[Layout, Ranks], None], layout: Layout) -> None:
    """Run `function(layout, ranks)` in `layout.world` processes that share the usable cores; wait for all.

    The function must be importable, and the call belongs under `if __name__ == "__main__"`. Raises
    `torch.multiprocessing.ProcessRaisedException` with the traceback of a process that failed.
    """
    with tempfile.TemporaryDirectory(prefix="trimtab-spawn-") as folder:
        store = Path(folder) / "store"
        torch.multiprocessing.spawn(_run, (function, layout, store), nprocs=layout.world)


def _run(rank: int, function: Callable[[Layout, Ranks], None], layout: Layout, store: Path) -> None:
    os.environ.update(loopback())
    torch.set_num_threads(max(1, len(usable_cores()) // layout.world))
    ranks = join(rank, layout.world, store)
    try:
        function(layout, ranks)
    finally:
        leave(ranks)
