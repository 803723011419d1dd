"""The cut itself: a smaller stock decoder from a model, its shape, and what was chosen and refitted.

The result is built by its config alone and loaded strictly, so what is saved is what any transformers loads.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.compression.pruning.blocks import HALVES, stores_outputs_first
from trimtab.compression.pruning.sequential import HalfCut, features_of
from trimtab.compression.shapes import Shape, check
from trimtab.models.families import Cut, Family
from trimtab.models.info import ModelInfo
from trimtab.spec.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def cut(
    model: PreTrainedModel, family: Family, info: ModelInfo, shape: Shape, cuts: Sequence[HalfCut]
) -> PreTrainedModel:
    """A new model of `shape`. Halves without an entry in `cuts` stay as they are; `model` is not changed."""
    check(shape, info)
    smaller = type(model)(smaller_config(model.config, family, info, shape))
    smaller.to(dtype=model.dtype)  # pyrefly: ignore[missing-argument] (transformers wraps `to`)
    by_layer = {(entry.layer, entry.half): entry for entry in cuts}
    state = _outside_layers(model.state_dict(), family)
    for new, old in enumerate(shape.layers):
        prefix = family.layer(old) + "."
        layer = {
            name.removeprefix(prefix): tensor
            for name, tensor in model.state_dict().items()
            if name.startswith(prefix)
        }
        for half in HALVES:
            if (old, half) in by_layer:
                _apply(layer, family, info, by_layer[old, half])
        state |= {f"{family.layer(new)}.{name}": tensor for name, tensor in layer.items()}
    smaller.load_state_dict(state, strict=True)
    return smaller.eval()


def smaller_config(
    config: PretrainedConfig, family: Family, info: ModelInfo, shape: Shape
) -> PretrainedConfig:
    if len(shape.layers) < info.layers and getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise ModelError(
            "layers cannot be removed from a model that scales attention by the layer's number.",
            where="config.json scale_attn_by_inverse_layer_idx",
            remedy="Cut the FFN instead.",
        )
    config, keys = copy.deepcopy(config), family.keys
    config.tie_word_embeddings = info.tied
    setattr(config, keys.layers, len(shape.layers))
    setattr(config, keys.ffn, shape.ffn)
    if keys.kv_heads and keys.head_dim:
        # Written out, so that fewer heads do not read as wider ones.
        setattr(config, keys.head_dim, info.head_dim)
        setattr(config, keys.heads, shape.kv_heads * (info.heads // info.kv_heads))
        setattr(config, keys.kv_heads, shape.kv_heads)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in shape.layers]
    if getattr(config, "max_window_layers", None) is not None:
        config.max_window_layers = sum(layer < config.max_window_layers for layer in shape.layers)
    return config


def _outside_layers(state: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(family.layers + ".")}


def _apply(layer: dict[str, Tensor], family: Family, info: ModelInfo, entry: HalfCut) -> None:
    """Cut one half's tensors in place of the dictionary, and put in the fitted output matrix."""
    if entry.half == "ffn":
        _slice(layer, family.ffn_cuts, entry.units)
        name = family.down
    else:
        if family.kv_cuts:
            per_group = info.heads // info.kv_heads
            _slice(layer, family.kv_cuts, features_of(entry.units, info.head_dim))
            _slice(layer, family.query_cuts, features_of(entry.units, per_group * info.head_dim))
        name = family.attention_out
    matrix = entry.matrix.T if stores_outputs_first(family) else entry.matrix
    layer[f"{name}.weight"] = matrix.contiguous()
    if entry.bias is not None:
        layer[f"{name}.bias"] = entry.bias


def _slice(layer: dict[str, Tensor], cuts: Sequence[Cut], kept: Tensor) -> None:
    for place in cuts:
        if place.tensor in layer:
            layer[place.tensor] = torch.index_select(layer[place.tensor], place.axis, kept)
