"""Activation recompute: keep a block's inputs and compute the rest again in the backward pass.

`full` keeps nothing else; `selective` keeps the results of matrix products, attention and collectives, which cost
most to compute, and computes the elementwise rest again (Korthikanti et al. 2022 recompute what is cheap).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from trimtab.models.layouts import refuse_recompute
from trimtab.parallel.strategies.batch_norm import has_batch_norms
from trimtab.parallel.strategies.blocks import blocks_of
from trimtab.spec.layout import Recompute

# Operations whose results are kept: by name, since not every build of torch has each of them.
_KEPT = (
    "aten.mm",
    "aten.addmm",
    "aten.bmm",
    "aten._scaled_dot_product",
    "_c10d_functional.",
    "c10d_functional.",
    "_c10d_functional_autograd.",
)


def recompute_activations(module: nn.Module, how: Recompute) -> None:
    """Wrap the forward pass of every block. Names of parameters stay as they are. Raises `UsageError`."""
    if how == "none":
        return
    if has_batch_norms(module):
        refuse_recompute()
    for block in blocks_of(module):
        block.forward = _recomputed(block.forward, how)


def _recomputed(forward: Callable[..., Any], how: Recompute) -> Callable[..., Any]:
    if how == "full":
        return partial(checkpoint, forward, use_reentrant=False)
    contexts = partial(create_selective_checkpoint_contexts, _policy)
    return partial(checkpoint, forward, use_reentrant=False, context_fn=contexts)


def _policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    del context, args, kwargs
    kept = str(operation).startswith(_KEPT)
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
