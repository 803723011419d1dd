"""A transformers decoder → a stateful OpenVINO model that GenAI's continuous batching accepts.

The KV cache is the model's state. Two things make GenAI's conversion to paged attention find its pattern: the
mask is built here, from positions and padding alone, because transformers' own mask code leaves uses of
`attention_mask` that the conversion cannot remove; and every state starts as zeros whose batch comes from
`input_ids`. Knows nothing of weight formats or files.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from trimtab.engines.openvino import names
from trimtab.models.info import ModelInfo

# Sizes for tracing only; any batch and length may follow. Past and new tokens differ so that no axis is taken
# for another.
_BATCH, _PAST, _NEW = 2, 4, 3


class _Traced(torch.nn.Module):
    """The decoder with its cache spelled out as tensors, and its mask made of positions and padding."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        layers = [_filled(past[i], past[i + 1]) for i in range(0, len(past), 2)]
        cache = DynamicCache()
        cache.layers = list(layers)
        places = torch.arange(mask.shape[1]).view(1, 1, 1, -1)
        visible = (places <= positions[:, None, :, None]) & (mask[:, None, None, :] > 0)
        lowest = torch.finfo(torch.float32).min
        additive = torch.where(visible, torch.tensor(0.0), torch.tensor(lowest))
        logits = self.model(
            input_ids=ids, attention_mask=additive, position_ids=positions, cache=cache, use_cache=True
        ).logits
        return (logits, *(tensor for layer in layers for tensor in (layer.keys, layer.values)))


def _filled(keys: torch.Tensor, values: torch.Tensor) -> DynamicLayer:
    """A cache layer that counts as initialised: updating an empty one traces a concatenation OpenVINO refuses."""
    layer = DynamicLayer()
    layer.keys, layer.values, layer.device, layer.is_initialized = keys, values, keys.device, True
    return layer


def export(model: PreTrainedModel, info: ModelInfo) -> ov.Model:
    """The model in float32 with inputs ids, mask, positions, beam_idx and output logits."""
    model = model.eval().float()
    model.set_attn_implementation("sdpa")
    exported = _trace(model, info)
    _name_and_reshape(exported, info)
    _reorder_past_by_beam(exported, info)
    pairs = dict(zip(names.past(info.layers), names.present(info.layers), strict=True))
    apply_make_stateful_transformation(exported, pairs)
    _start_states_from_zeros(exported, info)
    exported.validate_nodes_and_infer_types()
    return exported


def _trace(model: PreTrainedModel, info: ModelInfo) -> ov.Model:
    past = [torch.zeros(_BATCH, info.kv_heads, _PAST, info.head_dim) for _ in names.past(info.layers)]
    ids = torch.zeros(_BATCH, _NEW, dtype=torch.long)
    mask = torch.ones(_BATCH, _PAST + _NEW, dtype=torch.long)
    positions = torch.arange(_PAST, _PAST + _NEW).expand(_BATCH, -1).contiguous()
    with torch.no_grad():
        return ov.convert_model(_Traced(model), example_input=(ids, mask, positions, *past))


def _name_and_reshape(exported: ov.Model, info: ModelInfo) -> None:
    inputs = [names.IDS, names.MASK, names.POSITIONS, *names.past(info.layers)]
    outputs = [names.LOGITS, *names.present(info.layers)]
    for port, name in zip(exported.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    for port, name in zip(exported.outputs, outputs, strict=True):
        port.get_tensor().set_names({name})
    tokens, state = ov.PartialShape([-1, -1]), ov.PartialShape([-1, info.kv_heads, -1, info.head_dim])
    exported.reshape({name: state if name in inputs[3:] else tokens for name in inputs})
    exported.validate_nodes_and_infer_types()


def _reorder_past_by_beam(exported: ov.Model, info: ModelInfo) -> None:
    """GenAI's models have a `beam_idx` input that picks rows of the past; paged attention removes it again."""
    beam = ops.parameter([-1], dtype=np.int32, name=names.BEAM)
    beam.output(0).get_tensor().add_names({names.BEAM})
    exported.add_parameters([beam])
    for name in names.past(info.layers):
        past = exported.input(name).get_node()
        readers = list(past.output(0).get_target_inputs())
        chosen = ops.gather(past, beam, ops.constant(np.int64(0)))
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    exported.validate_nodes_and_infer_types()


def _start_states_from_zeros(exported: ov.Model, info: ModelInfo) -> None:
    ids = exported.input(names.IDS).get_node()
    batch = ops.gather(ops.shape_of(ids, output_type="i64"), ops.constant([0]), ops.constant(0))
    heads, empty, size = (ops.constant(np.array([n], np.int64)) for n in (info.kv_heads, 0, info.head_dim))
    zeros = ops.broadcast(ops.constant(np.float32(0)), ops.concat([batch, heads, empty, size], 0))
    for node in exported.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([zeros])
