"""`verdict.json`: what `optimize` returns. Ratios are winner ÷ baseline; each has its 95 % interval beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from trimtab.spec.hardware import Hardware
from trimtab.spec.measures import Quality, Speed
from trimtab.spec.serving import ServingConfiguration

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


class Winner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was published, against the baseline. `perplexity_ratio_control` is to the better of baseline and control."""

    name: str
    version: int
    candidate: str
    speedup_c1: float
    speedup_c1_interval: Interval
    speedup_c16: float
    speedup_c16_interval: Interval
    speedup_c16_over_int8: float
    speedup_c16_over_int8_interval: Interval
    perplexity_ratio: float
    perplexity_ratio_interval: Interval
    perplexity_ratio_control: float
    perplexity_ratio_control_interval: Interval
    top1_agreement: float
    top1_agreement_interval: Interval
    weights_bytes_ratio: float


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

    def save(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        temporary = path.with_name(path.name + ".part")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Verdict:
        return msgspec.json.decode(path.read_bytes(), type=cls)
