"""The `openvino` engine: GenAI's continuous batching, stepped from the worker's loop. Must not import torch.

`step` holds the interpreter's lock, so one step is bounded by `max_batch_tokens`. GenAI has no bound on the
sequences it advances together, so those beyond `max_batch` wait here, where dropping them costs nothing. Prefix
caching stays off: without a salt it would tell one tenant what another has asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from trimtab.engines.base import GREEDY_BELOW, EngineStatus, Score, Tokens, check_request, room_for, seed_of
from trimtab.engines.openvino.runtime import cache_blocks, properties
from trimtab.engines.openvino.scorer import Chunks, compile_plainly
from trimtab.engines.quiet import without_telemetry
from trimtab.engines.record import read_record
from trimtab.engines.scoring import piece_rows, score_pieces
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import ServingConfiguration
from trimtab.spec.wire import Capabilities, Event, Finish, Submit

if TYPE_CHECKING:
    import openvino as ov
    import openvino_genai

# "No limit" for GenAI's top_k, which would otherwise cut the distribution to 50.
_ALL_TOKENS = 2**31 - 1
_WARM_TOKENS = 2


class _Waiting(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    id: int
    tokens: Tokens
    config: Any


class _Running:
    """A request that GenAI has. Why it ends is told by its tokens: asking GenAI costs as much as reading them."""

    __slots__ = ("ends", "handle", "id", "left", "logprobs")

    def __init__(self, request: int, handle: Any, config: Any) -> None:
        self.id, self.handle = request, handle
        self.left, self.logprobs = config.max_new_tokens, config.logprobs > 0
        self.ends = frozenset() if config.ignore_eos else frozenset(config.stop_token_ids)

    def news(self) -> Event | None:
        """What the last step brought; None where it brought nothing."""
        if not self.handle.can_read():
            return self._lost()
        (output,) = self.handle.read().values()
        tokens = output.generated_ids
        if not tokens:
            return self._lost()
        self.left -= len(tokens)
        finish: Finish | None = None
        if tokens[-1] in self.ends:
            finish = "stop"
        elif self.left <= 0:
            finish = "length"
        logprobs = tuple(output.generated_log_probs) if self.logprobs else ()
        return Event(id=self.id, tokens=tuple(tokens), logprobs=logprobs, finish=finish)

    def _lost(self) -> Event | None:
        import openvino_genai

        if self.handle.get_status() == openvino_genai.GenerationStatus.RUNNING:
            return None
        return Event(
            id=self.id, finish="error", error="OpenVINO gave this request up: its cache cannot hold it"
        )


class OpenvinoEngine:
    """`engines.base.Engine` on a build of `openvino.build`."""

    def __init__(self, build: Path, serving: ServingConfiguration) -> None:
        self._build, self._serving = build, serving
        record = read_record(build)
        self._info = record.model
        self.content_digest = record.content_digest
        self.capabilities = Capabilities(
            kinds=("generate", "score"),
            context_length=record.model.context,
            vocabulary_size=record.model.vocabulary,
            eos_token_ids=record.model.eos_ids,
            max_batch=serving.max_batch,
        )
        without_telemetry()
        chosen = properties(record.weight_format, serving.kv_precision, serving.threads)
        # By default GenAI draws with a thread a core of the machine, which on a pinned worker only trade places.
        self._pipeline = _load(build, serving, chosen | {"sampler_num_threads": serving.threads})
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[int, _Running] = {}
        self._compiled: ov.CompiledModel | None = None
        self._warm_up()

    def submit(self, message: Submit, tokens: Tokens) -> None:
        check_request(message, tokens, self.capabilities)
        config = self._generation_config(message, room_for(message, tokens, self.capabilities))
        self._waiting.append(_Waiting(id=message.id, tokens=tokens, config=config))

    def cancel(self, request: int) -> None:
        if request in self._running:
            self._running.pop(request).handle.cancel()
        else:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.id != request)

    def step(self) -> list[Event]:
        events = self._admit()
        if not self._pipeline.has_non_finished_requests():
            return events
        try:
            self._pipeline.step()
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed in a step: {error}", where=str(self._build)) from error
        for running in list(self._running.values()):
            event = running.news()
            if event is not None:
                events.append(event)
                if event.finish is not None:
                    del self._running[running.id]
        return events

    @property
    def has_work(self) -> bool:
        # GenAI also counts what was cancelled, until a step has freed it.
        return bool(self._waiting) or self._pipeline.has_non_finished_requests()

    @property
    def pause_seconds(self) -> float:
        return 0.0

    def score(self, tokens: Tokens, top: int) -> Iterator[Score | None]:
        """The same graph, compiled plainly on first use. One job at a time may be under way per iterator."""
        if self._compiled is None:
            self._compiled = compile_plainly(self._build, self._serving.threads)
        chunks = Chunks(self._compiled, rows=piece_rows(self._info.vocabulary))
        return score_pieces(tokens, top, (piece[0] for piece in chunks.run(tokens[None])))

    def status(self) -> EngineStatus:
        used = self._pipeline.get_metrics().cache_usage / 100 if self._running else 0.0
        return EngineStatus(running=len(self._running), waiting=len(self._waiting), cache_used=used)

    def close(self) -> None:
        for request in list(self._running):
            self.cancel(request)
        self._waiting.clear()

    def _admit(self) -> list[Event]:
        """Hand waiting requests to GenAI while there is room; the news are of those that it refuses."""
        import openvino as ov

        refused = []
        while self._waiting and len(self._running) < self._serving.max_batch:
            waiting = self._waiting.popleft()
            ids = ov.Tensor(np.ascontiguousarray(waiting.tokens[None], np.int64))
            try:
                handle = self._pipeline.add_request(waiting.id, ids, waiting.config)
            except RuntimeError as error:
                refused.append(
                    Event(id=waiting.id, finish="error", error=f"OpenVINO refused the request: {error}")
                )
                continue
            self._running[waiting.id] = _Running(waiting.id, handle, waiting.config)
        return refused

    def _generation_config(self, message: Submit, limit: int) -> openvino_genai.GenerationConfig:
        import openvino_genai

        config, sampling = openvino_genai.GenerationConfig(), message.sampling
        if sampling is None:
            raise EngineError("a request to generate arrived without sampling settings.")
        config.max_new_tokens = limit
        config.logprobs = int(sampling.logprobs)
        self._set_ends(config, ignore=sampling.ignore_eos)
        config.do_sample = sampling.temperature >= GREEDY_BELOW
        if config.do_sample:
            config.temperature, config.top_p = sampling.temperature, sampling.top_p
            config.top_k, config.rng_seed = _ALL_TOKENS, seed_of(message)
        return config

    def _set_ends(self, config: openvino_genai.GenerationConfig, *, ignore: bool) -> None:
        """End tokens of one request. GenAI refuses a request that names none, so a model without gets one to ignore."""
        ends = self.capabilities.eos_token_ids
        config.ignore_eos = ignore or not ends
        config.eos_token_id = ends[0] if ends else 0
        config.stop_token_ids = set(ends) or {0}

    def _warm_up(self) -> None:
        """One short answer, so that kernels are made and memory is there before the first request."""
        import openvino as ov
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = _WARM_TOKENS
        self._set_ends(config, ignore=True)
        length = min(_WARM_TOKENS, self._info.context)
        self._pipeline.add_request(0, ov.Tensor(np.zeros((1, length), np.int64)), config)
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()


def _load(build: Path, serving: ServingConfiguration, chosen: dict[str, object]) -> Any:
    import openvino as ov
    import openvino_genai

    able = ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if serving.kv_precision == "bf16" and "BF16" not in able:
        raise EngineError(
            "this CPU has no bf16, so its KV cache cannot be kept in it.",
            where="kv_precision",
            remedy="Use float32, u8 or default.",
        )
    info = read_record(build).model
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = serving.max_batch_tokens
    scheduler.max_num_seqs = serving.max_batch
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = False
    scheduler.num_kv_blocks = cache_blocks(
        serving.cache_bytes,
        info.context,
        serving.kv_precision,
        layers=info.layers,
        kv_heads=info.kv_heads,
        head_dim=info.head_dim,
    )
    try:
        return openvino_genai.ContinuousBatchingPipeline(str(build), scheduler, "CPU", chosen)
    except RuntimeError as error:
        raise EngineError(f"OpenVINO cannot load the build: {error}", where=str(build)) from error
