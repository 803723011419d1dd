"""What does not speed an engine up, what it cannot load, and what compression has cost others: published figures and
our own, each with its source. Data only.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Engine = Literal["openvino", "transformers", "onnxruntime", "vllm", "llama.cpp"]
Step = Literal[
    "depth", "width", "kv_groups", "bf16", "int8", "int4", "unstructured", "2:4", "per_layer", "w8a8", "fp8"
]
ENGINES: tuple[Engine, ...] = get_args(Engine)
STEPS: tuple[Step, ...] = get_args(Step)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why `step` is not worth doing for `engines`, in a sentence, with where that was seen."""

    step: Step
    engines: tuple[Engine, ...]
    reason: str
    source: str


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What distillation brought back: `removed` share of parameters, `tokens` per parameter that stayed, and the
    share of the parent's score that was reached, at the least and at the most tokens that were tried.
    """

    removed: float
    tokens: tuple[float, float]
    kept_score: tuple[float, float]
    source: str


REFUSALS: tuple[Refusal, ...] = (
    Refusal(
        step="unstructured",
        engines=("openvino",),
        reason="no speed-up: zeros are multiplied as other weights are; only an opt-in of some Xeons skips them.",
        source="benchmarks/planning_compress.py, row 'unstructured'; OpenVINO sparse weights need AMX",
    ),
    Refusal(
        step="unstructured",
        engines=("onnxruntime",),
        reason="no speed-up: DistilBERT with 80% zeros took 12.50 ms where the dense model took 11.36 ms.",
        source="neuralmagic/sparseml#1529",
    ),
    Refusal(
        step="unstructured",
        engines=("transformers", "vllm", "llama.cpp"),
        reason="no speed-up: the products stay dense, zeros or not.",
        source="pytorch/pytorch#43552, locuslab/wanda",
    ),
    Refusal(
        step="2:4",
        engines=("openvino", "onnxruntime", "llama.cpp"),
        reason="no speed-up: a CPU has no product that skips two of four.",
        source="pytorch/pytorch#111339",
    ),
    Refusal(
        step="2:4",
        engines=("transformers",),
        reason="no speed-up: PyTorch's own tutorial measured 0.40 to 0.95 times the dense speed.",
        source="pytorch/tutorials#3236",
    ),
    Refusal(
        step="2:4",
        engines=("vllm",),
        reason="it is refused when saved in the sparse format, and dense zeros gain nothing.",
        source="vllm-project/llm-compressor#1303",
    ),
    Refusal(
        step="per_layer",
        engines=("transformers",),
        reason="it does not load: every layer is built with the widths of the whole model.",
        source="huggingface/transformers#45332",
    ),
    Refusal(
        step="per_layer",
        engines=("vllm",),
        reason="it does not load without a model class of its own.",
        source="vllm-project/vllm#36512",
    ),
    Refusal(
        step="per_layer",
        engines=("openvino", "onnxruntime", "llama.cpp"),
        reason="Trimtab makes shapes that are equal in all layers, so that every engine loads them.",
        source="compression/shapes.py",
    ),
    Refusal(
        step="w8a8",
        engines=("transformers",),
        reason="no speed-up: the weights are decompressed when they are loaded.",
        source="vllm-project/llm-compressor, FAQ 1",
    ),
    Refusal(
        step="w8a8",
        engines=("openvino", "onnxruntime", "vllm", "llama.cpp"),
        reason="Trimtab makes no builds with quantized activations.",
        source="engines/openvino/build.py",
    ),
    Refusal(
        step="fp8",
        engines=("openvino", "transformers", "onnxruntime", "llama.cpp"),
        reason="no speed-up: a CPU has no products in 8-bit floats.",
        source="Ada and Hopper GPUs are the first that do",
    ),
    Refusal(
        step="fp8",
        engines=("vllm",),
        reason="Trimtab makes no builds in 8-bit floats.",
        source="engines/registry.py",
    ),
    Refusal(
        step="int8",
        engines=("transformers",),
        reason="the engine serves float32 and bf16 only.",
        source="engines/refusals.py",
    ),
    Refusal(
        step="int4",
        engines=("transformers",),
        reason="the engine serves float32 and bf16 only.",
        source="engines/refusals.py",
    ),
    Refusal(
        step="int4",
        engines=("vllm",),
        reason="slower in batches: 0.75 and 0.83 times the bf16 speed at 8 and 64 (1.33 times alone).",
        source="NVIDIA ModelOpt, Llama-3-8B INT4-AWQ on H200",
    ),
)

RECOVERIES: tuple[Recovery, ...] = (
    Recovery(
        removed=0.22,
        tokens=(0.36, 11.4),
        kept_score=(0.905, 0.985),
        source="ModelOpt, Nemotron-Nano 9B to 7B: 59.8 after 2.5 B tokens, 65.1 after 80 B, parent 66.1",
    ),
    Recovery(
        removed=0.33,
        tokens=(47.5, 47.5),
        kept_score=(1.0, 1.0),
        source="Minitron (arXiv 2408.11796), 12B to 8B: MMLU 69.5 after 380 B tokens, parent 69.0",
    ),
    Recovery(
        removed=0.44,
        tokens=(20.9, 20.9),
        kept_score=(0.90, 0.93),
        source="Minitron (arXiv 2408.11796), Llama-3.1-8B to 4.5B: MMLU 58.7 by depth, 60.5 by width, 94 B tokens",
    ),
)
# NVIDIA's guideline: more than half in one go is hard to bring back.
HARD_REMOVAL = 0.5
INT8_RISK = "perplexity × 1.000 [1.000, 1.000] on our demo's model"
INT4_RISK = "up to 5.7% of MMLU lost (ModelOpt, Llama-3-8B INT4-AWQ)"


def refusal(step: Step, engine: Engine) -> Refusal | None:
    return next((found for found in REFUSALS if found.step == step and engine in found.engines), None)


def recovery(removed: float) -> Recovery | None:
    """The published case that removed at least as much; None beyond all of them."""
    return next((found for found in RECOVERIES if found.removed >= removed - 0.01), None)
