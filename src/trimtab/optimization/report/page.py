"""The page: what of a verdict is shown where. The template lays it out and escapes every word of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from trimtab.optimization.report import figures, plots
from trimtab.optimization.report.rows import Row, rows, subtitle
from trimtab.spec.measures import Estimate
from trimtab.spec.units import format_bytes, format_duration
from trimtab.spec.verdict import Candidate, Verdict


class Tile(msgspec.Struct, frozen=True, kw_only=True):
    """One headline figure: what, how much, and its interval."""

    label: str
    value: str
    beside: str = ""


def _tiles(verdict: Verdict) -> list[Tile]:
    winner = verdict.winner
    if winner is None:
        return []

    def ratio(label: str, found: Estimate) -> Tile:
        interval = figures.times_span((found.low, found.high))
        return Tile(label=label, value=figures.times(found.value), beside=interval)

    loaded, quality = winner.concurrency, winner.quality
    tiles = [ratio(f"tokens/s at {loaded} concurrent", winner.speedup[loaded])]
    tiles += [ratio("tokens/s, one at a time", winner.speedup[1])] if loaded > 1 else []
    tiles += [
        ratio(f"tokens/s at {loaded}, over int8 alone", winner.speedup_over_int8[loaded]),
        Tile(
            label="weight bytes",
            value=figures.times(winner.weights_bytes_ratio),
            beside="counted on the builds",
        ),
        ratio(f"{quality.metric}, over baseline", quality.ratio),
        ratio(f"{quality.metric}, over the better of baseline and control", quality.ratio_to_control),
    ]
    if agreement := quality.metrics.get("top1_agreement"):
        tiles.append(
            Tile(
                label="same top choice as the baseline",
                value=figures.percent(agreement.value),
                beside=figures.percent_span(agreement.low, agreement.high),
            )
        )
    ours, theirs = _find(verdict, winner.candidate).speed, verdict.baseline.speed
    if ours is not None and theirs is not None:
        beside = f"{format_bytes(ours.memory_bytes)} for {format_bytes(theirs.memory_bytes)}"
        tiles.append(Tile(label="memory under load", value=figures.times(winner.memory_ratio), beside=beside))
    return tiles


def _find(verdict: Verdict, name: str) -> Candidate:
    return next(c for c in (*verdict.candidates, *verdict.controls, verdict.baseline) if c.name == name)


def _headline(verdict: Verdict, baseline: str) -> tuple[str, str]:
    winner = verdict.winner
    if winner is None:
        return (
            "No candidate holds every limit",
            "Nothing was published. The reasons, and what would be feasible:",
        )
    published, speedup = f"{winner.name}@{winner.version}", winner.speedup[winner.concurrency]
    if verdict.is_faster:
        title = f"{published} serves {figures.times(speedup.value)} the tokens per second of the {baseline}"
    else:
        title = f"{published} replaces the {baseline}, and is not proven faster"
    text = (
        f"At {winner.concurrency} concurrent request{'s' if winner.concurrency > 1 else ''} on the same cores "
        f"{figures.times(speedup.value)} its tokens per second "
        f"(95 % interval {figures.times_span((speedup.low, speedup.high))}), "
        f"with {winner.quality.ratio.value:.3f} times its {winner.quality.metric}, "
        f"{figures.percent(winner.weights_bytes_ratio)} of its weight bytes and "
        f"{figures.percent(winner.memory_ratio)} of its memory."
    )
    return title, text


def _noise(verdict: Verdict) -> str:
    """What the A/A gate found, and whether the headline stands clear of it."""
    if verdict.noise is None:
        return "No A/A gate was run: read ratios close to 1 with care."
    low, high = verdict.noise
    found = f"The baseline's service against itself gave a ratio between {low:.3f} and {high:.3f} (A/A gate)."
    if verdict.winner is None:
        return found
    ending = (
        "The speed-up's whole interval lies above it."
        if verdict.is_faster
        else "The speed-up does not stand clear of it."
    )
    return f"{found} {ending}"


def _tradeoff(shown: Sequence[Row]) -> tuple[Markup, int]:
    """The plot of all rows that have both figures, at the highest concurrency that all of them share."""
    measured = [
        row for row in shown if row.candidate.quality and row.candidate.speed and row.candidate.speed.loads
    ]
    shared = set.intersection(*(set(row.concurrencies) for row in measured)) if measured else set()
    if not shared:
        return Markup(""), 0
    concurrency = max(shared)
    points = [
        plots.Point(
            name=row.label,
            kind=row.kind,
            perplexity=row.candidate.quality.perplexity,
            tokens_per_second=row.load(concurrency).tokens_per_second,
            pareto=row.candidate.pareto,
        )
        for row in measured
        if row.candidate.quality is not None
    ]
    return plots.tradeoff(points, concurrency), concurrency


def _ladder(verdict: Verdict, shown: Sequence[Row]) -> Markup:
    if not verdict.ngrams:
        return Markup("")
    rungs = [(name, "ngram", perplexity) for name, perplexity in verdict.ngrams.items()]
    wanted = ("baseline", "control", "winner", "from_scratch")
    rungs += [
        (row.label, row.kind, row.candidate.quality.perplexity.value)
        for row in shown
        if row.kind in wanted and row.candidate.quality
    ]
    return plots.ladder(sorted(rungs, key=lambda rung: -rung[2]))


def _panels(verdict: Verdict, curves: Mapping[str, plots.Curve]) -> list[tuple[str, Markup]]:
    """One panel a model; two where the losses share no scale, as the divergence of a distilled one does not."""
    panels: list[tuple[str, Markup]] = []
    for name, curve in curves.items():
        if plots.apart(curve):
            panels.append(
                (f"{name}: validation", plots.training(name, curve, verdict.ngrams, ("validation_loss",)))
            )
            panels.append((f"{name}: training", plots.training(name, curve, {}, ("loss",))))
        else:
            panels.append((name, plots.training(name, curve, verdict.ngrams)))
    return [(name, panel) for name, panel in panels if panel]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trimtab.optimization.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=figures.number,
        span=figures.interval_of,
        percent=figures.percent,
        percent_span=figures.percent_span,
        ratio="{:.3f}".format,
        bytes=format_bytes,
        duration=format_duration,
    )
    return environment


def render(
    verdict: Verdict,
    curves: Mapping[str, plots.Curve] | None = None,
    *,
    baseline_label: str = "baseline",
    command: str = "",
    notes: Sequence[str] = (),
) -> str:
    """The whole report as one HTML text that refers to nothing outside itself.

    `curves` gives points by name of the model trained: `tokens` and, where known, `loss` (training) and
    `validation_loss`, in nats per token. `command` is how to run it again; `notes` come before the standing ones.
    """
    environment = _environment()
    shown = rows(verdict, baseline_label)
    title, text = _headline(verdict, baseline_label)
    plot, concurrency = _tradeoff(shown)
    style, _, _ = (
        environment.loader.get_source(environment, "style.css") if environment.loader else ("", None, None)
    )
    return environment.get_template("report.html.j2").render(
        verdict=verdict,
        title=title,
        text=text,
        tiles=_tiles(verdict),
        noise=_noise(verdict),
        rows=shown,
        subtitle=subtitle,
        concurrencies=sorted({level for row in shown for level in row.concurrencies}),
        plot=plot,
        plot_concurrency=concurrency,
        ladder=_ladder(verdict, shown),
        panels=_panels(verdict, curves or {}),
        command=command,
        notes=tuple(notes),
        # Our own file, not data.
        style=Markup(style),  # noqa: S704
    )


def write_report(
    path: Path,
    verdict: Verdict,
    curves: Mapping[str, plots.Curve] | None = None,
    *,
    baseline_label: str = "baseline",
    command: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write `render`'s page to `path`, whole or not at all."""
    page = render(verdict, curves, baseline_label=baseline_label, command=command, notes=notes)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
