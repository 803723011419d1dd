"""What an engine did with a model on a machine: the measured record that serving and compression are planned from.

Raw figures only; what follows from them is worked out in `planning`. Measured through the service, so the cost
of the gateway and of its neighbours on the same cores is in them.
"""

from __future__ import annotations

import msgspec

from trimtab.spec.hardware import Hardware
from trimtab.spec.serving import ServingConfiguration


class Wave(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`running` requests to each worker, sent together, nothing else under way but `guests` to each worker: requests of
    as long a prompt and two tokens, one after another. Seconds, medians over rounds and over those that are no guests.

    `ttft` from sending to the first token; `tpot` per token after it, while `running` sequences advance together.
    """

    running: int
    prompt_tokens: int
    output_tokens: int
    guests: int = 0
    ttft: float
    tpot: float


class EngineProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model, one serving configuration, one machine, all its workers busy at once.

    `model` is the content digest of the artifact ("mock" without one). `memory_bytes` is the peak PSS of the
    service; `slowdowns` how the machine's speed came and went meanwhile: the time per token of every wave of every
    round ÷ its median over the rounds. `cache_token_bytes` is what one token of context takes in the KV cache, which is
    given out in blocks of `cache_block_tokens`. Sizes of the model are 0 for the mock engine.
    """

    hardware: Hardware
    created: str
    trimtab_version: str
    model: str
    name: str
    serving: ServingConfiguration
    waves: tuple[Wave, ...]
    rounds: int
    memory_bytes: int
    slowdowns: tuple[float, ...] = ()
    context_length: int
    weights_bytes: int = 0
    parameters: int = 0
    layers: int = 0
    cache_token_bytes: float = 0.0
    cache_block_tokens: int = 1


class ShapeProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The profile of one shape of a model in one weight format (its `serving`'s)."""

    layers: int
    ffn: int
    kv_heads: int
    profile: EngineProfile


class CompressionProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What single steps of compression do to one model on one engine: the first shape is the whole model, the
    others differ from it in one thing each. Speed does not depend on what weights are, so they may be random.
    """

    model: str
    name: str
    shapes: tuple[ShapeProfile, ...]
