"""Weight formats of an exported model: float32 as it is, bf16 storage, int8 and int4 by NNCF. Data-free.

What decides the bytes is fixed here, so that the same artifact always gives the same build.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import nncf
import numpy as np
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode
from numpy.typing import NDArray
from openvino import opset13 as ops

from trimtab.models.info import ModelInfo
from trimtab.spec.serving import WeightFormat

# Smaller groups keep more quality and cost 1 % more bytes each halving; 32 is the smallest that kernels serve.
_WIDE, _NARROW, _SMALLEST = 128, 64, 32


def convert_weights(exported: ov.Model, weight_format: WeightFormat, info: ModelInfo) -> ov.Model:
    """The model with its weight matrices stored in `weight_format`. May change `exported` in place."""
    if weight_format == "bf16":
        _store_as_bf16(exported)
    elif weight_format == "int8":
        return nncf.compress_weights(exported, mode=nncf.CompressWeightsMode.INT8_ASYM)
    elif weight_format == "int4":
        return _int4(exported, info)
    return exported


def _int4(exported: ov.Model, info: ModelInfo) -> ov.Model:
    """Every matrix but embedding and head, which NNCF keeps in int8, in groups that divide its width.

    A matrix whose width no group divides takes a smaller group, or stays in int8.
    """
    group = _WIDE if info.hidden % _WIDE == 0 and info.ffn % _WIDE == 0 else _NARROW
    fallback = AdvancedCompressionParameters(
        group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=_SMALLEST
    )
    return nncf.compress_weights(
        exported,
        mode=nncf.CompressWeightsMode.INT4_ASYM,
        ratio=1.0,
        group_size=group,
        advanced_parameters=fallback,
    )


def _store_as_bf16(exported: ov.Model) -> None:
    """Replace every float32 matrix by a bf16 one and a conversion back, to be marked by `mark_widening`.

    Vectors (norms, biases) and tables of positions stay: they are small, and rounding them costs most.
    """
    for node in exported.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() != ov.Type.f32:
            continue
        shape = list(node.output(0).shape)
        if len(shape) != 2 or min(shape) == 1:
            continue
        readers = list(node.output(0).get_target_inputs())
        # OpenVINO's own memory: a constant does not keep a numpy array alive. numpy sees bf16 as two-byte words.
        stored = ov.Tensor(ov.Type.bf16, ov.Shape(shape))
        stored.data[:] = bf16_bits(node.data).view(stored.data.dtype)
        constant = ops.constant(stored)
        constant.set_friendly_name(node.get_friendly_name())
        widened = ops.convert(constant, "f32")
        for reader in readers:
            reader.replace_source_output(widened.output(0))
    exported.validate_nodes_and_infer_types()


def mark_widening(graph: Path) -> None:
    """Say in a saved graph that conversions from bf16 only widen stored weights.

    Without the mark, which Python cannot set, the CPU plugin unfolds the weights to float32 when it loads: half
    as much memory again, and 1.5 times the time of a token for a single request (CPU without bf16).
    """
    tree = ET.parse(graph)  # noqa: S314 (a file that this process has just written)
    for layer in tree.iter("layer"):
        source = layer.find("input/port")
        if layer.get("type") == "Convert" and source is not None and source.get("precision") == "BF16":
            mark = ET.Element("rt_info")
            ET.SubElement(mark, "attribute", {"name": "decompression", "version": "0"})
            layer.insert(1, mark)
    tree.write(graph, encoding="utf-8", xml_declaration=True)


def bf16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest, ties to even (NaN does not occur in weights)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
