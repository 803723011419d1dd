"""`serving.json`: how an artifact is served. What was measured is written here, and `serve` obeys it."""

from __future__ import annotations

from typing import Literal

import msgspec

EngineName = Literal["openvino", "transformers", "mock"]
WeightFormat = Literal["float32", "bf16", "int8", "int4"]
KvPrecision = Literal["float32", "bf16", "u8", "default"]


class MockSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mock engine's rates, so that a service can be loaded without a model."""

    prefill_tokens_per_second: float = 100_000.0
    step_seconds: float = 0.001
    context_length: int = 4096
    vocabulary_size: int = 256


class ServingConfiguration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine, one weight format, one core plan. `replicas` workers of `threads` threads each.

    `cores` pins replica i to `cores[i % len(cores)]` (a tuple of core numbers); empty = not pinned.
    `max_batch` bounds the sequences a worker advances together, `max_batch_tokens` the tokens of one step,
    so that a step stays short. `max_queue` bounds requests that wait for one replica.
    """

    engine: EngineName = "openvino"
    weight_format: WeightFormat = "int8"
    kv_precision: KvPrecision = "default"
    replicas: int = 1
    threads: int = 1
    cores: tuple[tuple[int, ...], ...] = ()
    max_batch: int = 64
    max_batch_tokens: int = 512
    max_queue: int = 256
    cache_bytes: int = 256 * 2**20
    mock: MockSettings | None = None
