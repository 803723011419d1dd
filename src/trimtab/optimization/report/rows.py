"""The rows of the report's tables: baseline, controls and candidates, with the words that describe them."""

from __future__ import annotations

import msgspec

from trimtab.spec.measures import Load
from trimtab.spec.units import format_count
from trimtab.spec.verdict import Candidate, Verdict

_ROLES = {
    "baseline": "as it came in",
    "control": "trained on, with the same extra tokens as distillation had",
    "int8_only": "only stored in fewer bits",
    "from_scratch": "the small shape, trained from scratch with the same total compute",
}
_SHAPE = {"layers": "{} layers", "ffn": "FFN {}", "kv_heads": "{} KV heads", "hidden": "hidden {}"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as shown. `kind` is its role, or `winner`."""

    candidate: Candidate
    label: str
    kind: str
    outcome: str

    @property
    def concurrencies(self) -> tuple[int, ...]:
        return tuple(load.concurrency for load in self.candidate.speed.loads) if self.candidate.speed else ()

    def load(self, concurrency: int) -> Load:
        """Raises KeyError where it was not measured at that concurrency."""
        return {load.concurrency: load for load in self.candidate.speed.loads}[concurrency]  # pyrefly: ignore

    def find(self, concurrency: int) -> Load | None:
        return self.load(concurrency) if concurrency in self.concurrencies else None


def rows(verdict: Verdict, baseline_label: str) -> list[Row]:
    """Baseline, controls, then candidates with the winner first."""
    name = verdict.winner.candidate if verdict.winner else None
    baseline = Row(
        candidate=verdict.baseline, label=baseline_label, kind="baseline", outcome=_ROLES["baseline"]
    )
    controls = [
        Row(candidate=c, label=c.name, kind=c.role, outcome=c.reason or _ROLES.get(c.role, ""))
        for c in verdict.controls
    ]
    candidates = [
        Row(
            candidate=c,
            label=c.name,
            kind="winner" if c.name == name else c.role,
            outcome="published" if c.name == name else c.reason,
        )
        for c in verdict.candidates
    ]
    # The winner may be a control, such as int8 alone where nothing smaller holds.
    controls = [
        msgspec.structs.replace(r, kind="winner") if r.candidate.name == name else r for r in controls
    ]
    return [baseline, *controls, *sorted(candidates, key=lambda row: row.kind != "winner")]


def subtitle(candidate: Candidate) -> str:
    """What it is, in one line: shape, parameters, engine, weights, workers and threads."""
    shape = [_SHAPE.get(key, key + " {}").format(value) for key, value in candidate.shape.items()]
    serving = candidate.serving
    workers = f"{serving.replicas} × {serving.threads} thread{'s' if serving.threads != 1 else ''}"
    size = f"{format_count(candidate.parameters)} parameters"
    return " · ".join([*shape, size, serving.engine, serving.weight_format, workers])
