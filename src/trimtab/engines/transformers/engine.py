"""The `transformers` engine: one batch of all running requests a step, on any device that torch has.

A step takes in one piece of one prompt and advances every request that is past its prompt by one token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from trimtab.engines.base import EngineStatus, Score, Tokens, check_request, room_for, seed_of
from trimtab.engines.scoring import piece_rows, score_pieces
from trimtab.engines.transformers.drawing import draw
from trimtab.engines.transformers.model import load_model
from trimtab.engines.transformers.slots import Slots
from trimtab.spec.artifact import content_digest
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.wire import Capabilities, Event, Finish, Sampling, Submit


class _Stream:
    """One request: its tokens so far, how many of them the cache holds, and its row while it runs."""

    __slots__ = ("end", "generator", "id", "row", "sampling", "stored", "tokens")

    def __init__(self, message: Submit, tokens: Tokens, limit: int, sampling: Sampling) -> None:
        self.id, self.sampling = message.id, sampling
        self.tokens: list[int] = tokens.tolist()
        self.end = len(self.tokens) + limit
        self.stored, self.row = 0, -1
        self.generator = torch.Generator().manual_seed(seed_of(message))

    @property
    def new(self) -> int:
        """Tokens that the cache does not hold yet: 1 once the prompt is in."""
        return len(self.tokens) - self.stored


class TransformersEngine:
    """`engines.base.Engine` on an artifact."""

    def __init__(self, artifact: Path, serving: ServingConfiguration) -> None:
        torch.set_num_threads(serving.threads)
        self._model, self._info = load_model(artifact, serving.weight_format)
        self._serving = serving
        self.content_digest = content_digest(artifact)
        self.capabilities = Capabilities(
            kinds=("generate", "score"),
            context_length=self._info.context,
            vocabulary_size=self._info.vocabulary,
            eos_token_ids=self._info.eos_ids,
            max_batch=serving.max_batch,
        )
        self._slots = self._new_slots()
        self._free_rows = list(range(serving.max_batch))
        self._waiting: deque[_Stream] = deque()
        self._running: dict[int, _Stream] = {}
        self._warm_up()

    def submit(self, message: Submit, tokens: Tokens) -> None:
        check_request(message, tokens, self.capabilities)
        if message.sampling is None:
            raise EngineError("a request to generate arrived without sampling settings.")
        limit = room_for(message, tokens, self.capabilities)
        self._waiting.append(_Stream(message, tokens, limit, message.sampling))

    def cancel(self, request: int) -> None:
        if request in self._running:
            self._release(self._running[request])
        else:
            self._waiting = deque(stream for stream in self._waiting if stream.id != request)

    def step(self) -> list[Event]:
        self._admit()
        try:
            return self._prefill() + self._decode()
        except RuntimeError as error:
            raise EngineError(f"torch failed in a step: {error}") from error

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting)

    @property
    def pause_seconds(self) -> float:
        return 0.0

    def score(self, tokens: Tokens, top: int) -> Iterator[Score | None]:
        return score_pieces(tokens, top, self._logits(tokens))

    def status(self) -> EngineStatus:
        used = (
            self._bytes(self._running.values()) / self._serving.cache_bytes
            if self._serving.cache_bytes
            else 0.0
        )
        return EngineStatus(running=len(self._running), waiting=len(self._waiting), cache_used=min(1.0, used))

    def close(self) -> None:
        for stream in list(self._running.values()):
            self._release(stream)
        self._waiting.clear()

    def _admit(self) -> None:
        """Give rows to those who wait, as long as the cache has room for what all may come to hold."""
        while self._waiting and self._free_rows:
            wanted = [*self._running.values(), self._waiting[0]]
            # A request is never kept out for ever: alone it always runs.
            if self._running and 0 < self._serving.cache_bytes < self._bytes(wanted):
                return
            stream = self._waiting.popleft()
            stream.row = self._free_rows.pop(0)
            self._running[stream.id] = stream

    def _bytes(self, streams: Iterable[_Stream]) -> int:
        """What the slots take at worst: rows are all as long as the longest."""
        ends = [stream.end for stream in streams]
        size = self._model.dtype.itemsize
        one = 2 * self._info.layers * self._info.kv_heads * self._info.head_dim * size
        return len(ends) * max(ends, default=0) * one

    def _prefill(self) -> list[Event]:
        """One piece of the oldest prompt that is not in yet; its first token if that was the last piece."""
        stream = next(
            (stream for stream in self._running.values() if stream.new > 1 or stream.stored == 0), None
        )
        if stream is None:
            return []
        piece = min(stream.new, self._serving.max_batch_tokens)
        logits = self._forward([stream], piece)
        return [self._say(stream, logits[0])] if stream.new == 0 else []

    def _decode(self) -> list[Event]:
        ready = [stream for stream in self._running.values() if stream.new == 1 and stream.stored > 0]
        if not ready:
            return []
        logits = self._forward(ready, 1)
        return [self._say(stream, row) for stream, row in zip(ready, logits, strict=True)]

    def _forward(self, streams: list[_Stream], new: int) -> torch.Tensor:
        """Feed the next `new` tokens of each; the last logits (streams, vocabulary), float32 on the CPU."""
        ids = [stream.tokens[stream.stored : stream.stored + new] for stream in streams]
        rows, starts = [stream.row for stream in streams], [stream.stored for stream in streams]
        for stream in streams:
            stream.stored += new
        return self._run(self._slots, ids, rows, starts, keep=1)[:, -1]

    @torch.inference_mode()
    def _run(
        self, slots: Slots, ids: list[list[int]], rows: list[int], starts: list[int], *, keep: int
    ) -> torch.Tensor:
        arguments = slots.call(rows, starts, len(ids[0]), self._model.dtype)
        tensor = torch.tensor(ids, device=self._model.device)
        return self._model(input_ids=tensor, logits_to_keep=keep, **arguments).logits.float().cpu()

    def _say(self, stream: _Stream, logits: torch.Tensor) -> Event:
        if not torch.isfinite(logits).all():
            self._release(stream)
            return Event(id=stream.id, finish="error", error="the model's logits are not finite")
        token, logprob = draw(logits, stream.sampling, stream.generator)
        stream.tokens.append(token)
        finish: Finish | None = None
        if token in self.capabilities.eos_token_ids and not stream.sampling.ignore_eos:
            finish = "stop"
        elif len(stream.tokens) >= stream.end:
            finish = "length"
        if finish is not None:
            self._release(stream)
        logprobs = (logprob,) if stream.sampling.logprobs else ()
        return Event(id=stream.id, tokens=(token,), logprobs=logprobs, finish=finish)

    def _release(self, stream: _Stream) -> None:
        del self._running[stream.id]
        # The lowest row first, so that few rows are ever made.
        self._free_rows.append(stream.row)
        self._free_rows.sort()

    def _logits(self, tokens: Tokens) -> Iterator[np.ndarray]:
        """Pieces (rows, vocabulary) of the logits of one text, with a cache of its own."""
        slots, rows = self._new_slots(), piece_rows(self._info.vocabulary)
        for start in range(0, len(tokens), rows):
            piece = tokens[start : start + rows].tolist()
            yield self._run(slots, [piece], [0], [start], keep=0)[0].numpy()

    def _new_slots(self) -> Slots:
        return Slots(self._model.config, self._info.layers, device=self._model.device)

    def _warm_up(self) -> None:
        self._run(self._new_slots(), [[0]], [0], [0], keep=1)
