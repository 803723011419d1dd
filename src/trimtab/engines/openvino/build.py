"""Makes an OpenVINO build: load, refuse what cannot be exported, export, prove, convert weights, save.

Runs in the build process only (torch). The same artifact and weight format always give the same bytes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import openvino as ov

from trimtab.engines.openvino import names
from trimtab.engines.openvino.export import export
from trimtab.engines.openvino.proof import prove
from trimtab.engines.openvino.weights import convert_weights, mark_widening
from trimtab.engines.refusals import refuse_for_any_engine, refuse_window
from trimtab.models.info import CONFIG, ModelInfo, inspect
from trimtab.models.load import load
from trimtab.spec.serving import WeightFormat


def make(artifact: Path, weight_format: WeightFormat, output: Path) -> ModelInfo:
    """Fill the existing folder `output`. Raises `ModelError` or `EngineError` in a sentence."""
    info = inspect(artifact)
    model = load(artifact)
    refuse_for_any_engine(model.config, info, artifact)
    refuse_window(model.config, info, artifact)
    exported = export(model, info)
    prove(exported, model, info)
    _name_nodes(converted := convert_weights(exported, weight_format, info), info)
    ov.save_model(converted, str(output / names.MODEL), compress_to_fp16=False)
    if weight_format == "bf16":
        mark_widening(output / names.MODEL)
    for name in (CONFIG, "generation_config.json"):
        if (artifact / name).is_file():
            shutil.copyfile(artifact / name, output / name)
    return info


def _name_nodes(model: ov.Model, info: ModelInfo) -> None:
    """Names count up from process start; fixed ones make a build the same whatever was built before it."""
    model.set_friendly_name(info.family)
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() != "Parameter":
            node.set_friendly_name(f"{node.get_type_name()}_{number}")
