"""Builds a plan's model for real, without memory, and counts what each rank of the full world would hold.

Stock transformers modules on the meta device, split by DTensor and FSDP2 under a fake process group: 405 B
parameters on 16,384 ranks take seconds on a laptop. What is counted is compared with what planning predicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from trimtab.planning.training.job import Job
from trimtab.planning.training.memory import rank_parameters
from trimtab.planning.training.stages import can_split, different_ranks, layers_of_ranks
from trimtab.planning.training.states import states
from trimtab.spec.errors import RefusedError
from trimtab.spec.layout import Layout

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.placement_types import Placement
    from transformers import PreTrainedConfig, PreTrainedModel

# Shards are padded to whole rows, which small tensors on many ranks feel.
_TOLERANCE = 0.01
# Which dimension of a parameter tensor parallelism splits, by the end of its module's name. GPT-2's matrices
# are stored (in, out), the others (out, in); a column-parallel bias is split, a row-parallel one is not.
_SPLIT = {
    "embed_tokens": (0, None),
    "lm_head": (0, None),
    "q_proj": (0, 0),
    "k_proj": (0, 0),
    "v_proj": (0, 0),
    "gate_proj": (0, 0),
    "up_proj": (0, 0),
    "o_proj": (1, None),
    "down_proj": (1, None),
    "wte": (0, None),
    "c_attn": (1, 0),
    "c_fc": (1, 0),
    "c_proj": (0, None),
}


class RankCount(msgspec.Struct, frozen=True, kw_only=True):
    """One rank: parameters after the tensor and pipeline axes, and bytes of its states after sharding."""

    rank: int
    stage: int
    parameters: int
    predicted_parameters: int
    states_bytes: int
    predicted_states_bytes: int

    @property
    def error(self) -> float:
        """The larger relative difference of the two."""
        return max(
            abs(self.predicted_parameters / self.parameters - 1),
            abs(self.predicted_states_bytes / self.states_bytes - 1),
        )


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """The first and the last rank of a pipeline and one of each kind between; the others are like one of these."""

    ranks: tuple[RankCount, ...]
    parameters: int
    predicted_parameters: int
    agrees: bool
    sentence: str


def check(job: Job, layout: Layout) -> Check:
    """The counts of a layout that divides by planning's rules. Raises `RefusedError` where torch cannot split so."""
    if not can_split(job, layout):
        raise RefusedError(f"{job.architecture.layers} layers do not divide.", where=str(layout))
    layers = layers_of_ranks(job, layout)
    whole = sum(parameter.numel() for parameter in _build(job).parameters())
    ranks = tuple(_count(job, layout, layers, stage) for stage in different_ranks(layers))
    predicted = job.architecture.parameters
    worst = max(found.error for found in ranks)
    agrees = whole == predicted and worst <= _TOLERANCE
    return Check(
        ranks=ranks,
        parameters=whole,
        predicted_parameters=predicted,
        agrees=agrees,
        sentence=f"check: {whole:,} parameters built, {predicted:,} predicted; "
        f"{len(ranks)} of {layout.world:,} ranks differ by at most {worst:.2%} of their states.",
    )


def _count(job: Job, layout: Layout, layers: tuple[int, ...], stage: int) -> RankCount:
    """Rank 0 of a stage: its share is the largest where one is."""
    first, last = stage == 0, stage == layout.pipeline - 1
    rank = stage * (layout.world // layout.pipeline)
    with _fake_world(rank, layout.world):
        model = _build(job, layers[stage], first=first, last=last)
        mesh = _mesh(layout, rank)
        if layout.tensor > 1:
            _split_tensors(model, mesh["tensor"])
        parameters = _held(model)
        if layout.shard > 1:
            _shard(model, mesh["shard"], reshard=layout.reshard)
        sharded = _held(model)
    # Bytes a parameter, as planning counts them: before any sharding. Torch has sharded already.
    bytes_each = states(job.precision, job.optimizer, layout).total
    expected = rank_parameters(job, layout, layers[stage], first=first, last=last)
    return RankCount(
        rank=rank,
        stage=stage,
        parameters=parameters,
        predicted_parameters=round(expected),
        states_bytes=round(sharded * bytes_each * layout.shard),
        predicted_states_bytes=round(expected * bytes_each),
    )


@contextmanager
def _fake_world(rank: int, world: int) -> Iterator[None]:
    """A process group of `world` ranks of which only this one exists. Nothing is sent."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if dist.is_initialized():
        raise RefusedError("a process group is open already.", where="--check", remedy="Use a new process.")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _build(job: Job, layers: int | None = None, *, first: bool = True, last: bool = True) -> PreTrainedModel:
    """The model, or a stage of it: what a stage lacks is taken out."""
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(job, job.architecture.layers if layers is None else layers)
    # A stage without the embedding keeps a tied head as a table of its own.
    config.tie_word_embeddings = job.architecture.tied and first
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    body = model.get_submodule(model.base_model_prefix)
    gpt = job.architecture.family == "gpt"
    absent = [] if first else ["wte", "wpe"] if gpt else ["embed_tokens"]
    absent += [] if last else ["ln_f"] if gpt else ["norm"]
    for name in absent:
        delattr(body, name)
    if not last:
        del model.lm_head
    return model


def _config(job: Job, layers: int) -> PreTrainedConfig:
    from transformers import GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config

    shape = job.architecture
    if shape.family == "gpt":
        return GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.positions,
            n_embd=shape.hidden,
            n_layer=layers,
            n_head=shape.heads,
            n_inner=shape.ffn,
        )
    if shape.attention_bias:
        # Qwen2 has no head_dim of its own.
        make = Qwen2Config
    else:
        make = partial(Qwen3Config if shape.query_key_norm else LlamaConfig, head_dim=shape.head_dim)
    return make(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
    )


def _mesh(layout: Layout, rank: int) -> DeviceMesh:
    """The groups that share this rank's parameters; `tensor` is innermost, `context` between the two."""
    from torch.distributed.device_mesh import DeviceMesh

    step = layout.tensor * layout.context
    group = [[rank + place * step + other for other in range(layout.tensor)] for place in range(layout.shard)]
    return DeviceMesh("cpu", group, mesh_dim_names=("shard", "tensor"))


def _split_tensors(model: nn.Module, mesh: DeviceMesh) -> None:
    """Parameters as DTensors over the rank's tensor-parallel group."""
    from torch import nn
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    split: dict[int, nn.Parameter] = {}
    for name, module in list(model.named_modules()):
        weight_dim, bias_dim = _SPLIT.get(name.rpartition(".")[2], (None, None))
        for key, parameter in list(module.named_parameters(recurse=False)):
            dim = weight_dim if key == "weight" else bias_dim
            place: Placement = Replicate() if dim is None else Shard(dim)
            # A tied table is one parameter under two names, and stays one.
            if id(parameter) not in split:
                split[id(parameter)] = nn.Parameter(distribute_tensor(parameter, mesh, [place]))
            setattr(module, key, split[id(parameter)])


def _shard(model: PreTrainedModel, mesh: DeviceMesh, *, reshard: bool) -> None:
    """FSDP2 over the rank's shard group, layer by layer."""
    from torch.distributed.fsdp import fully_shard

    body = model.get_submodule(model.base_model_prefix)
    for layer in body.get_submodule("h" if hasattr(body, "h") else "layers").children():
        fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard)


def _held(model: nn.Module) -> int:
    """Elements that this rank holds."""
    from torch.distributed.tensor import DTensor

    tensors = (parameter.data for parameter in model.parameters())
    return sum(
        tensor.to_local().numel() if isinstance(tensor, DTensor) else tensor.numel() for tensor in tensors
    )
