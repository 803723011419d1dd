"""Context parallelism: every rank holds a part of each sequence, and gathers the keys and values of the rest.

Exact for causal attention. torch's own does not run on CPUs. The attention function is registered with
transformers under `NAME`, and finds its rank's group among the arguments that a layer passes on.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._functional_collectives import all_gather_single_autograd
from torch.nn import functional

from trimtab.models.stretch import Stretch
from trimtab.parallel.mesh import Grid

NAME = "trimtab_context"


def share_sequences(stretch: Stretch, grid: Grid) -> None:
    """Make a stretch attend over the whole sequence though it is given a part."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    stretch.config._attn_implementation = NAME  # noqa: SLF001 (how transformers is told)
    stretch.part, stretch.parts = grid.context_index, grid.layout.context
    stretch.attention = {"context": (grid.context_group, grid.context_index)}


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    context: tuple[dist.ProcessGroup, int],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """(n, heads, part, width) queries against the keys and values of all parts → (n, part, heads, width)."""
    del module, attention_mask
    group, index = context
    whole_key, whole_value = (gather(part, group) for part in (key, value))
    length, begin = query.shape[2], index * query.shape[2]
    seen = torch.ones(length, whole_key.shape[2], dtype=torch.bool, device=query.device).tril(begin)
    attended = functional.scaled_dot_product_attention(
        query,
        whole_key,
        whole_value,
        attn_mask=seen,
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=whole_key.shape[1] != query.shape[1],
    )
    return attended.transpose(1, 2).contiguous(), None


def gather(part: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """(n, heads, part, width) of every rank, joined in order; its gradient is summed and scattered back."""
    return all_gather_single_autograd(part.contiguous(), gather_dim=2, group=group)
