"""How a build is put on the CPU: precision, threads and KV cache. The same for engine and scorer.

Must not import torch: this runs in workers.
"""

from __future__ import annotations

from trimtab.spec.errors import UsageError
from trimtab.spec.serving import KvPrecision, WeightFormat

CACHE_BLOCK_TOKENS = 32
_KV: dict[KvPrecision, str] = {"float32": "f32", "bf16": "bf16", "u8": "u8"}


def properties(weight_format: WeightFormat, kv_precision: KvPrecision, threads: int) -> dict[str, object]:
    """Properties for OpenVINO's CPU plugin.

    Pinning is off because workers set their own affinity: two that pin themselves land on one core. float32
    builds compute in float32 also where the CPU would rather use bf16; all others compute as comes natural.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; it must be at least 1.", where="threads")
    chosen: dict[str, object] = {
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
        "NUM_STREAMS": 1,
    }
    if weight_format == "float32":
        chosen["INFERENCE_PRECISION_HINT"] = "f32"
    if kv_precision != "default":
        chosen["KV_CACHE_PRECISION"] = _KV[kv_precision]
    return chosen


def cache_token_bytes(kv_precision: KvPrecision, *, layers: int, kv_heads: int, head_dim: int) -> float:
    """Bytes of KV cache for one token.

    In u8, keys carry a scale and a zero point (float32) per channel and 32-token block, values per token.
    """
    if kv_precision in ("u8", "default"):
        per_head = head_dim * (1 + 8 / CACHE_BLOCK_TOKENS) + head_dim + 8
    else:
        per_head = 2 * head_dim * (4 if kv_precision == "float32" else 2)
    return layers * kv_heads * per_head


def cache_blocks(
    cache_bytes: int, context: int, kv_precision: KvPrecision, *, layers: int, kv_heads: int, head_dim: int
) -> int:
    """How many blocks of 32 tokens fit in `cache_bytes`; at least one sequence of full length. 0 bytes: grow freely."""
    if cache_bytes == 0:
        return 0
    one_token = cache_token_bytes(kv_precision, layers=layers, kv_heads=kv_heads, head_dim=head_dim)
    least = -(-context // CACHE_BLOCK_TOKENS) + 1
    return max(least, int(cache_bytes / (one_token * CACHE_BLOCK_TOKENS)))
