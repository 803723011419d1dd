"""`trimtab demo`: the whole main job on real input, without a download, ending with real clients."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.console import say, stages, table
from trimtab.cli.optimize import show
from trimtab.cli.output import emit_json
from trimtab.spec.errors import EXIT_REFUSED, TrimtabError, UsageError
from trimtab.spec.units import format_bytes, format_duration

if TYPE_CHECKING:
    from openai import OpenAI

    from trimtab.spec.measures import Speed
    from trimtab.spec.recipe import Recipe
    from trimtab.spec.verdict import Verdict

AT_ONCE = 16
PROMPTS = (
    "def __init__(self",
    "import os\n",
    "class Parser:\n    ",
    "    for name in ",
    "try:\n    ",
    "if not isinstance(",
)
OUTPUT_TOKENS = 48


def demo(
    output: Annotated[Path | None, typer.Option(help="Where the run keeps its files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Train a small model of Python code, optimize, prove, publish and serve it. A second run reuses the first."""
    from trimtab.optimization.run import optimize
    from trimtab.store.store import Store

    recipe = demo_recipe()
    require_openai()
    with stages() as progress:
        verdict = optimize(recipe, output=output, progress=progress)
    if verdict.winner is None:
        show(verdict)
        raise typer.Exit(EXIT_REFUSED)
    Store().alias(verdict.name, "prod", verdict.winner.version)
    say(f"{verdict.name}:baseline and {verdict.name}:prod are published; loading both with the openai client")
    for alias in ("baseline", "prod"):
        answered = load_with_openai(f"{verdict.name}:{alias}")
        say(f"  {verdict.name}:{alias}: {answered}")
    if as_json:
        emit_json(verdict)
    else:
        show(verdict)
        before_after(verdict)
    say(f"serve it:  trimtab serve {verdict.name}:prod")


def demo_recipe() -> Recipe:
    from trimtab.spec.recipe import Recipe

    text = files("trimtab.cli").joinpath("demo.yaml").read_text(encoding="utf-8")
    return Recipe.parse(text, name="demo.yaml")


def require_openai() -> None:
    """Said before the long work, not after it."""
    from importlib.util import find_spec

    if find_spec("openai") is None:
        raise UsageError(
            "the demo ends with the official openai client, which is not installed.",
            remedy="Run: pip install 'trimtab[demo]'.",
        )


def load_with_openai(reference: str) -> str:
    """Serve a published version and ask it what a user would: its models, then answers and streams, 16 at a time."""
    import openai

    import trimtab

    artifact = trimtab.load(reference)
    with trimtab.serve(artifact, port=0) as service:
        client = openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.create_key("demo"))
        if [model.id for model in client.models.list()] != [artifact.name]:
            raise TrimtabError("the service does not list the model it serves.", where=reference)
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            counts = list(pool.map(partial(_ask, client, artifact.name), range(2 * AT_ONCE)))
        seconds = time.monotonic() - began
    return f"{len(counts)} answers, half of them streamed, {sum(counts)} tokens in {format_duration(seconds)}"


def _ask(client: OpenAI, model: str, number: int) -> int:
    """One completion, streamed for even numbers. Returns the tokens that the service says it wrote."""
    create = partial(
        client.completions.create,
        model=model,
        prompt=PROMPTS[number % len(PROMPTS)],
        max_tokens=OUTPUT_TOKENS,
        temperature=0.7,
        seed=number,
    )
    if number % 2:
        usage = create().usage
    else:
        chunks = create(stream=True, stream_options={"include_usage": True})
        usage = [chunk.usage for chunk in chunks][-1]
    if usage is None:
        raise TrimtabError("an answer came without its usage.", where=model)
    return usage.completion_tokens


def before_after(verdict: Verdict) -> None:
    """The table that the demo is about: what came in, what goes out."""
    winner = verdict.winner
    if winner is None:
        return
    before = verdict.baseline
    after = next(c for c in verdict.candidates if c.name == winner.candidate)
    if not (before.speed and after.speed and before.quality and after.quality):
        return
    rows = [
        [
            "parameters",
            f"{before.parameters / 1e6:.2f} M",
            f"{after.parameters / 1e6:.2f} M",
            _times(before.parameters, after.parameters),
        ],
        [
            "weights",
            format_bytes(before.weights_bytes),
            format_bytes(after.weights_bytes),
            _times(before.weights_bytes, after.weights_bytes),
        ],
        [
            "memory",
            format_bytes(before.speed.memory_bytes),
            format_bytes(after.speed.memory_bytes),
            _times(before.speed.memory_bytes, after.speed.memory_bytes),
        ],
        *_speed_rows(before.speed, after.speed),
        [
            "perplexity",
            f"{before.quality.perplexity.value:.2f}",
            f"{after.quality.perplexity.value:.2f}",
            _times(before.quality.perplexity.value, after.quality.perplexity.value),
        ],
    ]
    table(f"{verdict.name}: before and after", ["", "baseline", f"winner ({after.name})", "ratio"], rows)


def _speed_rows(before: Speed, after: Speed) -> list[list[str]]:
    rows = []
    for old, new in zip(before.loads, after.loads, strict=True):
        at = f"at {old.concurrency}"
        rates = (old.tokens_per_second.value, new.tokens_per_second.value)
        rows.append([f"output tokens/s {at}", *(f"{rate:,.0f}" for rate in rates), _times(*rates)])
        rows.append(
            [
                f"first token {at}, p95",
                format_duration(old.ttft_p95),
                format_duration(new.ttft_p95),
                _times(old.ttft_p95, new.ttft_p95),
            ]
        )
    return rows


def _times(before: float, after: float) -> str:
    return f"{after / before:.2f} ×"
