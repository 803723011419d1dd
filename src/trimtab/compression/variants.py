"""Models of another shape with random weights: enough to measure how fast a shape is before anything is cut."""

from __future__ import annotations

from pathlib import Path

from trimtab.compression.candidates import Method, shapes
from trimtab.compression.shapes import Shape, check, whole
from trimtab.models.families import FAMILIES
from trimtab.models.info import ModelInfo, inspect

_SIZES: dict[Method, str] = {"depth": "layers", "width": "ffn", "kv_groups": "kv_heads"}


def blank(model: Path, shape: Shape, folder: Path) -> Path:
    """Write an untrained float32 model of `shape` with the tokenizer of the folder `model`. Returns `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from trimtab.compression.pruning.decoder import smaller_config
    from trimtab.models.load import save

    info = inspect(model)
    config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    smaller = smaller_config(config, FAMILIES[info.family], info, check(shape, info))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return save(AutoModelForCausalLM.from_config(smaller, dtype=torch.float32), folder, model)


def single_cuts(info: ModelInfo) -> list[Shape]:
    """The whole shape, then for each dimension that can be cut a shape with about half of it."""
    full, found = whole(info), []
    for method, size in _SIZES.items():
        cuts = shapes(info, range(info.layers), methods=(method,))
        half = full.sizes[size] / 2
        found += sorted(cuts, key=lambda cut: abs(cut.sizes[size] - half))[:1]
    return [full, *found]
