"""How long a run will take, before it starts: from the recipe, the model's size and this machine's matrix rate.

An estimate of minutes, not a promise: neighbours on a shared machine are not known. Pure but for one short
measurement.
"""

from __future__ import annotations

import time

import msgspec
import numpy as np

from trimtab.optimization.recovery import FORWARD_SHARE, RESERVE_SECONDS
from trimtab.optimization.shaping import MOST_SHAPES, aim
from trimtab.optimization.training import DEFAULT_SECONDS
from trimtab.spec.architectures import Architecture
from trimtab.spec.recipe import Recipe

# What training small decoders reaches of the plain matrix rate, optimizer included; measured on CPUs.
TRAINING_EFFICIENCY = 0.5
START_SECONDS = 15.0
SECONDS_A_SHAPE = 12.0


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    seconds: float


def matrix_rate() -> float:
    """Float32 multiply-adds × 2 per second of a square product, best of a few; takes about 0.3 s."""
    generator = np.random.default_rng(0)
    a, b = (generator.random((768, 768), dtype=np.float32) for _ in range(2))
    a @ b
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 768**3 / best


def parameters(architecture: Architecture) -> int:
    """Weights that a token meets, head included (a lookup costs nothing)."""
    head = architecture.hidden // architecture.heads
    kv = (architecture.kv_heads or architecture.heads) * head
    attention = architecture.hidden * (2 * architecture.hidden + 2 * kv)
    ffn = 3 * architecture.hidden * architecture.ffn
    return architecture.layers * (attention + ffn) + architecture.vocabulary * architecture.hidden


def forecast(recipe: Recipe, weights: int, rate: float) -> list[Stage]:
    """Stages in order. `weights` of the baseline, `rate` from `matrix_rate`."""
    stages = [Stage(name="prepare", seconds=START_SECONDS)]
    tokens_per_second = rate * TRAINING_EFFICIENCY / (6 * weights)
    if isinstance(recipe.model, Architecture):
        training = recipe.training
        seconds = training.tokens / tokens_per_second if training.tokens else training.time or DEFAULT_SECONDS
        stages.append(Stage(name="train the baseline", seconds=seconds))
    extra = recipe.search.distill_tokens
    if extra == 0:
        return [*stages, Stage(name="measure and prove", seconds=RESERVE_SECONDS * 2 / 3)]
    stages.append(Stage(name="cut, refit and time the shapes", seconds=MOST_SHAPES * SECONDS_A_SHAPE))
    before = sum(stage.seconds for stage in stages)
    if extra == "auto":
        seconds = max(0.0, recipe.budget.time - before - RESERVE_SECONDS)
    else:
        cost = 1 + recipe.search.finalists * (FORWARD_SHARE + 1 / aim(recipe))
        seconds = extra * cost / tokens_per_second
    stages.append(Stage(name="control and distillation", seconds=seconds))
    if recipe.search.from_scratch:
        # The same total compute as the baseline and what made the winner of it.
        spent = sum(stage.seconds for stage in stages if stage.name.startswith(("train", "control")))
        stages.append(Stage(name="train from scratch", seconds=spent))
    return [*stages, Stage(name="measure and prove", seconds=RESERVE_SECONDS)]
