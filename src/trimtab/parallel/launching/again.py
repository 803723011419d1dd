"""What to do when ranks are gone: start again where that helps, from what is there to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtab.spec.checkpoints import steps

# After a fault of the program itself, which a second start meets again.
LOOK_CLOSER = "It may well end so again; TRIMTAB_DEBUG=1 shows all that the process said."


def start_again(job: Mapping[str, Any]) -> str:
    """For ranks that are gone for no fault of theirs; `job` may say where it keeps checkpoints."""
    if not job.get("checkpoints"):
        return "Start again."
    found = steps(Path(job["checkpoints"]))
    if not found:
        return "Start again: there is no checkpoint yet, so training begins anew."
    return f"Start again: training goes on from step {found[-1]}."
