"""What every engine is: a batch of requests that advances one step at a time, in the calling thread.

Nothing here blocks: `step` does one bounded piece of work. Engines raise `UsageError` for a request they cannot
take and `EngineError` when they themselves are broken; they know nothing of sockets, text or time limits.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.spec.errors import UsageError
from trimtab.spec.wire import Capabilities, Event, Submit

Tokens = NDArray[np.int32]
# Dividing logits by less than this may overflow, and draws nothing but the most probable token anyway.
GREEDY_BELOW = 1e-3


class Score(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Log-probability (nats) of every token given those before it; index 0 is NaN.

    With `top` = k > 0 asked for, row i of `top_ids` and `top_logprobs` (tokens, k) holds the k most probable
    tokens at place i, best first; row 0 is undefined.
    """

    logprobs: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top_logprobs: NDArray[np.float32]


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in the batch, requests that wait for a place, and the used fraction of the KV cache."""

    running: int = 0
    waiting: int = 0
    cache_used: float = 0.0


class Engine(Protocol):
    """One loaded build."""

    capabilities: Capabilities
    content_digest: str

    def submit(self, message: Submit, tokens: Tokens) -> None:
        """Queue a `generate` request. Raises `UsageError` and keeps nothing of it if it cannot be served."""

    def cancel(self, request: int) -> None:
        """Forget a request; what it holds is free after the next step. Unknown ids are ignored."""

    def step(self) -> list[Event]:
        """Advance everything once and return the news. An end token is among `tokens` of the last event."""

    @property
    def has_work(self) -> bool:
        """Whether `step` has anything to advance."""

    @property
    def pause_seconds(self) -> float:
        """How long `step` would have nothing to say: the loop may sleep so long. 0 for engines that compute."""

    def score(self, tokens: Tokens, top: int) -> Iterator[Score | None]:
        """Score a text in bounded pieces: None while there is more to do, the score last."""

    def status(self) -> EngineStatus: ...

    def close(self) -> None:
        """Give back what the engine holds. No call may follow."""


def check_request(message: Submit, tokens: Tokens, capabilities: Capabilities) -> None:
    """Refuse what no engine can serve. Raises `UsageError` naming the field."""
    if message.kind not in capabilities.kinds:
        raise UsageError(f"this engine does not serve {message.kind!r}.", where="kind")
    if len(tokens) == 0:
        raise UsageError("the prompt is empty.", where="prompt", remedy="Send at least one token.")
    if int(tokens.min()) < 0 or int(tokens.max()) >= capabilities.vocabulary_size:
        raise UsageError(
            f"a token id lies outside of the vocabulary of {capabilities.vocabulary_size}.", where="prompt"
        )
    room = capabilities.context_length - (1 if message.kind == "generate" else 0)
    if len(tokens) > room:
        raise UsageError(
            f"the prompt has {len(tokens)} tokens; the model's context of {capabilities.context_length} has room "
            f"for {room}.",
            where="prompt",
            remedy="Send a shorter prompt.",
        )
    if message.kind == "generate":
        _check_sampling(message)
    elif not 0 <= message.top <= capabilities.vocabulary_size:
        raise UsageError(f"top is {message.top}; it must lie between 0 and the vocabulary.", where="top")


def _check_sampling(message: Submit) -> None:
    sampling = message.sampling
    if sampling is None:
        raise UsageError("a request to generate needs sampling settings.", where="sampling")
    if sampling.max_tokens < 1:
        raise UsageError(f"max_tokens is {sampling.max_tokens}; it must be at least 1.", where="max_tokens")
    if not 0 <= sampling.temperature <= 100:
        raise UsageError(
            f"temperature is {sampling.temperature}; it must lie in 0 … 100.", where="temperature"
        )
    if not 0 < sampling.top_p <= 1:
        raise UsageError(f"top_p is {sampling.top_p}; it must lie in 0 … 1, above 0.", where="top_p")


def room_for(message: Submit, tokens: Tokens, capabilities: Capabilities) -> int:
    """How many tokens a checked request may generate: `max_tokens`, or what is left of the context."""
    if message.sampling is None:
        raise UsageError("a request to generate needs sampling settings.", where="sampling")
    return min(message.sampling.max_tokens, capabilities.context_length - len(tokens))


def seed_of(message: Submit) -> int:
    """The asked-for seed; without one, a number from the operating system.

    Anything else (a counter, a library's default) would give the same "random" answers after every start.
    """
    chosen = message.sampling.seed if message.sampling is not None else None
    return secrets.randbits(63) if chosen is None else chosen % 2**63
