"""The planner's formulas for eager torch, against what autograd really keeps of transformers' stock blocks."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from trimtab.planning.devices.machine import HostCost, Link, Machine
from trimtab.planning.training.activations import layer_bytes
from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.eager import CHUNK_TOKENS
from trimtab.planning.training.job import Job
from trimtab.spec.layout import Layout
from trimtab.training.objectives import divergence

HIDDEN, HEADS, FFN, VOCABULARY = 64, 4, 160, 96
LINK = Link(latency_seconds=0.0, bytes_per_second=1e9)
CPU = Machine(
    name="cpu",
    peak_flops=1e9,
    gemm_flops=1e9,
    attention_flops=1e9,
    memory_bytes=2**36,
    memory_bytes_per_second=1e9,
    inside=LINK,
    between=LINK,
    per_node=1,
    launch_seconds=0.0,
    measured=True,
    host={"data": HostCost(layer_seconds=0.0, step_seconds=0.0)},
)


def config(family: str, layers: int) -> PreTrainedConfig:
    if family == "gpt2":
        return GPT2Config(
            vocab_size=VOCABULARY, n_positions=64, n_embd=HIDDEN, n_layer=layers, n_head=HEADS, n_inner=FFN
        )
    return {"llama": LlamaConfig, "qwen3": Qwen3Config}[family](
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=64,
    )


def kept(family: str, layers: int, batch: int, length: int, precision: str) -> int:
    """Bytes of every storage that the backward pass needs, other than weights and their 16-bit copies."""
    model = AutoModelForCausalLM.from_config(config(family, layers)).train()
    shapes = {parameter.shape for parameter in model.parameters() if parameter.ndim > 1}
    shapes |= {shape[::-1] for shape in shapes}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # Held on to, so that no address is used twice.
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(batch, length, dtype=torch.int64)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed"),
    ):
        model(input_ids=ids, use_cache=False)
    return sum(
        tensor.untyped_storage().nbytes()
        for address, tensor in found.items()
        if address not in weights and tensor.shape not in shapes
    )


@pytest.mark.parametrize(
    ("family", "precision"),
    [("llama", "fp32"), ("llama", "mixed"), ("qwen3", "fp32"), ("qwen3", "mixed"), ("gpt2", "fp32")],
)
def test_a_layer_keeps_what_is_planned(family, precision):
    batch, length = 3, 40
    job = Job(
        architecture=Architecture(
            family="gpt" if family == "gpt2" else "llama",
            layers=1,
            hidden=HIDDEN,
            heads=HEADS,
            kv_heads=HEADS if family == "gpt2" else 2,
            head_dim=HIDDEN // HEADS,
            ffn=FFN,
            vocabulary=VOCABULARY,
            tied=True,
            query_key_norm=family == "qwen3",
        ),
        machine=CPU,
        devices=1,
        sequence_length=length,
        global_batch=batch,
        precision=precision,
        software="torch",
    )
    counted = kept(family, 2, batch, length, precision) - kept(family, 1, batch, length, precision)
    assert counted == layer_bytes(job, Layout(micro_batch=batch), "torch")


def test_the_loss_is_computed_in_the_chunks_that_are_planned():
    assert divergence.CHUNK_TOKENS == CHUNK_TOKENS
