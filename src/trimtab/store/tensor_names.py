"""What a tensor in a checkpoint is, by its name and type: a parameter, a constant, or a piece of a quantized matrix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from trimtab.store.safetensors_header import Tensor

StoredDtype = Literal["float32", "bfloat16", "float16"]

# Masks and tables in old checkpoints that follow from the config: stock transformers computes them anew, and at
# most warns of those in a file.
_CONSTANT = re.compile(
    r"(^|\.)(attn|crossattention|self_attn|attention)\.(bias|masked_bias)$"
    r"|(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$"
    r"|(^|\.)(position_ids|token_type_ids)$"
)
# What GPTQ, AWQ, bitsandbytes, compressed-tensors and FP8 checkpoints have in place of a matrix, or beside it.
_QUANTIZED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|weight_(packed|shape|scale|scale_inv|scale_2|zero_point)"
    r"|weight\.(absmax|quant_map|quant_state|nested_absmax|nested_quant_map)(\..*)?)$"
)
_DTYPES: Mapping[str, StoredDtype] = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_INTEGERS = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"})


def is_constant(name: str) -> bool:
    """Whether a tensor of this name is no parameter: not counted, and nothing of the model depends on it."""
    return _CONSTANT.search(name) is not None


def is_quantized(name: str) -> bool:
    return _QUANTIZED.search(name) is not None


def stored_dtype(tensors: Mapping[str, Tensor]) -> StoredDtype:
    """The one type of all weights, whatever the config says; of mixed and rarer ones float32."""
    floats = {tensor.dtype for name, tensor in tensors.items() if not is_constant(name)} - _INTEGERS
    return _DTYPES.get(floats.pop(), "float32") if len(floats) == 1 else "float32"
