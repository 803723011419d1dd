"""Is what a model writes sane? Finds empty and looping answers; writes samples with any scorer. Pure numpy.

Loss and agreement are measured on real text and miss models that fall into a loop on their own text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

LOOP_TOKENS = 24
LOOP_REPEATS = 4
Logits = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def looping(tokens: Sequence[int]) -> bool:
    """Whether the end repeats one phrase: `LOOP_REPEATS` times or more, and `LOOP_TOKENS` tokens or more."""
    ids = np.asarray(tokens)
    for period in range(1, len(ids) // LOOP_REPEATS + 1):
        length = max(LOOP_TOKENS, LOOP_REPEATS * period)
        if length > len(ids):
            continue
        end = ids[-length:]
        if np.array_equal(end[period:], end[:-period]):
            return True
    return False


def degenerate(tokens: Sequence[int], eos_ids: Collection[int] = ()) -> bool:
    """Whether an answer is empty (nothing before the first end token) or loops."""
    answer: list[int] = []
    for token in tokens:
        if token in eos_ids:
            break
        answer.append(token)
    return not answer or looping(answer)


def fraction_degenerate(answers: Sequence[Sequence[int]], eos_ids: Collection[int] = ()) -> float:
    """The share of answers that are empty or loop; 0 where there are none."""
    return sum(degenerate(answer, eos_ids) for answer in answers) / max(1, len(answers))


def sample(
    logits: Logits,
    prompts: NDArray[np.integer],
    length: int,
    *,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Continue prompts (n, k) by `length` tokens: (n, length). `logits`: ids (n, t) → (n, t, vocabulary).

    Temperature 0 is greedy, which makes any small model loop; so sanity is judged on drawn text by default.
    Has no cache: meant for tens of short answers. The same seed gives the same draws to every build.
    """
    generator = np.random.default_rng(seed)
    ids = prompts.astype(np.int64)
    for _ in range(length):
        last = logits(ids)[:, -1].astype(np.float64)
        uniform = generator.random(len(ids))
        chosen = _draw(last / temperature, top_p, uniform) if temperature > 0 else last.argmax(axis=1)
        ids = np.concatenate([ids, chosen[:, None]], axis=1)
    return ids[:, prompts.shape[1] :]


def _draw(scaled: NDArray[np.float64], top_p: float, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nucleus sampling: the smallest set that holds `top_p`, drawn by inverting its distribution."""
    order = np.argsort(-scaled, axis=1, kind="stable")
    ranked = np.take_along_axis(scaled, order, axis=1)
    weights = np.exp(ranked - ranked[:, :1])
    weights /= weights.sum(axis=1, keepdims=True)
    # A token stays while those before it hold less than top_p; the first always stays.
    weights[np.cumsum(weights, axis=1) - weights >= max(top_p, np.finfo(float).tiny)] = 0.0
    cumulative = np.cumsum(weights, axis=1)
    rank = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(axis=1)
    return np.take_along_axis(order, rank[:, None], axis=1)[:, 0]
