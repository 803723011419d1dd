"""Does `plan compress` predict what shapes and bits gain? Measured on the engine, interleaved with the whole model.

    python benchmarks/planning_compress.py MODEL [--rounds N] [--output FILE]

Single cuts and formats are measured and combinations predicted; then models of those combinations (random weights,
which change no speed) are served side by side with the whole one. The row `unstructured` is the whole model with
half of its weights zero. Writes `benchmarks/results/planning_compress.json`; exits 1 if a speed-up is off by more
than a quarter.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import msgspec

from trimtab.bench.load import measure, speedup
from trimtab.cli.console import say, table
from trimtab.compression.shapes import FFN_MULTIPLE, Shape
from trimtab.compression.variants import blank
from trimtab.models.info import ModelInfo, inspect
from trimtab.models.served import served_model
from trimtab.optimization.profiling import measure_compression
from trimtab.optimization.speed import served
from trimtab.planning.compression.plan import compression_plan
from trimtab.planning.serving.traffic import Traffic
from trimtab.spec.clock import now
from trimtab.spec.engine_profile import CompressionProfile
from trimtab.spec.hardware import Hardware, this_machine
from trimtab.spec.measures import Estimate
from trimtab.spec.serving import ServingConfiguration, WeightFormat
from trimtab.store.home import home

RESULTS = Path(__file__).resolve().parent / "results" / "planning_compress.json"
LEVELS, PROMPT, OUTPUT = (1, 16), 64, 64
BOUND = 0.25
WHOLE, AGAIN, ZEROS = "whole", "whole, again", "unstructured"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Speed-ups by concurrency. Without a prediction: the row is there to be refused."""

    name: str
    predicted: dict[int, float]
    measured: dict[int, Estimate]
    predicted_memory_bytes: int | None
    memory_bytes: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    hardware: Hardware
    created: str
    noise: dict[int, Estimate]
    rows: tuple[Row, ...]
    profile: CompressionProfile


def combinations(info: ModelInfo) -> list[tuple[Shape, WeightFormat]]:
    """None of them was measured: two or three things at once, at other fractions."""
    half = tuple(range(max(1, info.layers // 2)))
    most = tuple(range(max(1, round(info.layers * 2 / 3))))

    def ffn(share: float) -> int:
        return max(FFN_MULTIPLE, round(info.ffn * share / FFN_MULTIPLE) * FFN_MULTIPLE)

    groups = max(1, info.kv_heads // 2)
    return [
        (Shape(layers=half, ffn=ffn(1 / 2), kv_heads=info.kv_heads), "int8"),
        (Shape(layers=half, ffn=ffn(1 / 4), kv_heads=groups), "int8"),
        (Shape(layers=most, ffn=ffn(1 / 4), kv_heads=groups), "bf16"),
        (Shape(layers=most, ffn=info.ffn, kv_heads=info.kv_heads), "int8"),
    ]


def zeroed(model: Path, folder: Path) -> Path:
    """A copy whose matrices have lost the smaller half of their weights."""
    import torch

    from trimtab.models.load import load, save

    loaded = load(model)
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.ndim == 2:
                middle = parameter.abs().flatten().float().median()
                parameter.mul_(parameter.abs() > middle)
    return save(loaded, folder, model)


def predictions(
    profile: CompressionProfile, wanted: list[tuple[Shape, WeightFormat]], clients: int
) -> list[tuple[float, int]]:
    """Speed-up and memory of each, among clients that ask one after the other."""
    shapes = [(len(shape.layers), shape.ffn, shape.kv_heads) for shape, _ in wanted]
    traffic = Traffic(prompt_tokens=PROMPT, output_tokens=OUTPUT, concurrency=clients)
    plan = compression_plan(profile, shapes, traffic, formats=["int8"])
    by_sizes = {option.sizes: option for option in plan.options}
    base = plan.baseline.expected.tokens_per_second
    found = []
    for (layers, ffn, heads), (_, bits) in zip(shapes, wanted, strict=True):
        sizes = msgspec.structs.replace(
            plan.baseline.sizes, layers=layers, ffn=ffn, kv_heads=heads, weight_format=bits
        )
        option = by_sizes[sizes]
        found.append((option.expected.tokens_per_second / base, option.memory_bytes))
    return found


def run(name: str, artifact: Path, serving: ServingConfiguration, rounds: int) -> Result:
    info = inspect(artifact)
    say("measuring single cuts and formats")
    profile = measure_compression(name, artifact, serving, ["int8"], home())
    wanted = combinations(info)
    predicted = {level: predictions(profile, wanted, level) for level in LEVELS}
    names = [f"{shape}, {bits}" for shape, bits in wanted]
    with tempfile.TemporaryDirectory(prefix="trimtab-planning-") as folder:
        rows = {WHOLE: (artifact, serving), ZEROS: (zeroed(artifact, Path(folder, ZEROS)), serving)}
        for number, (label, (shape, bits)) in enumerate(zip(names, wanted, strict=True)):
            how = msgspec.structs.replace(serving, weight_format=bits)
            rows[label] = (blank(artifact, shape, Path(folder, str(number))), how)
        with served(rows, home()) as running:
            targets = {label: one.target for label, one in running.items()}
            found = measure(
                targets | {AGAIN: targets[WHOLE]},
                prompt_tokens=PROMPT,
                output_tokens=OUTPUT,
                vocabulary_size=info.vocabulary,
                concurrencies=LEVELS,
                rounds=rounds,
                on_event=lambda event: say(f"round {event.round}: {event.target} at {event.concurrency}"),
            )
    lines = [
        Row(
            name=label,
            predicted={level: predicted[level][place][0] for level in LEVELS} if place >= 0 else {},
            measured={level: speedup(found[label], found[WHOLE], level) for level in LEVELS},
            predicted_memory_bytes=predicted[LEVELS[0]][place][1] if place >= 0 else None,
            memory_bytes=found[label].memory_bytes,
        )
        for place, label in enumerate([ZEROS, *names], start=-1)
    ]
    noise = {level: speedup(found[AGAIN], found[WHOLE], level) for level in LEVELS}
    return Result(hardware=this_machine(), created=now(), noise=noise, rows=tuple(lines), profile=profile)


def show(result: Result) -> None:
    columns = ["speed-up: predicted / measured", *(f"{level} at once" for level in LEVELS), "memory MiB"]
    lines = []
    for row in result.rows:
        cells = [row.name]
        for level in LEVELS:
            guess = f"{row.predicted[level]:.2f}" if row.predicted else "–"
            cells.append(f"{guess} / {row.measured[level]}")
        memory = f"{row.predicted_memory_bytes / 2**20:.0f}" if row.predicted_memory_bytes else "–"
        lines.append([*cells, f"{memory} / {row.memory_bytes / 2**20:.0f}"])
    lines.append(["the whole model against itself", *map(str, result.noise.values()), ""])
    table("plan compress against the engine", columns, lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    model = served_model(arguments.model)
    if model.artifact is None:
        parser.error("give a model, not the mock engine")
    result = run(model.name, model.artifact, model.serving, arguments.rounds)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2))
    show(result)
    off = [
        abs(row.predicted[level] / row.measured[level].value - 1)
        for row in result.rows
        for level in row.predicted
    ]
    return 0 if max(off) <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
