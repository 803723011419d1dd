"""`verdict.json`: what `optimize` returns. Ratios are winner ÷ baseline, each with its 95 % interval."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from trimtab.spec.hardware import Hardware
from trimtab.spec.measures import Estimate, Quality, Speed
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.tasks import Task

Interval = tuple[float, float]


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One artifact with one serving configuration, and how far it came.

    `shape` holds what differs from the baseline (layers, ffn, kv_heads). `reason` says in a sentence why it did
    not win; it is empty for the winner. `quality` and `speed` are None where it was dropped before measuring.
    """

    name: str
    role: Literal["baseline", "control", "int8_only", "candidate", "from_scratch"]
    shape: dict[str, int]
    parameters: int
    weights_bytes: int
    serving: ServingConfiguration
    steps: tuple[str, ...] = ()
    trained_tokens: int = 0
    quick_perplexity: float | None = None
    quality: Quality | None = None
    speed: Speed | None = None
    reason: str = ""
    pareto: bool = False


class WinnerQuality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figure `metric` that was gated: `ratio` is to the baseline, `ratio_to_control` to the better of baseline
    and control. `metrics` holds what was measured of the winner itself, by name.
    """

    metric: str
    ratio: Estimate
    ratio_to_control: Estimate
    metrics: dict[str, Estimate]


class Winner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was published, against the baseline. Speed-ups are of units (tokens) a second, by concurrency."""

    name: str
    version: int
    candidate: str
    task: Task
    speedup: dict[int, Estimate]
    speedup_over_int8: dict[int, Estimate]
    quality: WinnerQuality
    weights_bytes_ratio: float
    memory_ratio: float

    @property
    def concurrency(self) -> int:
        """The traffic's: the largest that was measured."""
        return max(self.speedup)


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Winner, controls, candidates with a reason for every loser; or infeasible, with reasons and the nearest level."""

    feasible: bool
    name: str
    baseline: Candidate
    controls: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]
    winner: Winner | None
    reasons: tuple[str, ...] = ()
    nearest: dict[str, str] = {}
    noise: Interval | None = None
    ngrams: dict[str, float] = {}
    hardware: Hardware
    recipe_digest: str
    trimtab_version: str
    created: str
    seconds: float
    run: str = ""

    @property
    def is_faster(self) -> bool:
        """Whether the winner's whole speed-up under load lies above what the baseline's service showed against itself.

        Without an A/A gate, above 1.
        """
        if self.winner is None:
            return False
        most = self.noise[1] if self.noise else 1.0
        return self.winner.speedup[self.winner.concurrency].low > max(1.0, most)

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Verdict:
        return msgspec.json.decode(path.read_bytes(), type=cls)
