"""A module that is on this rank whole, or sharded: forward, loss and backward of a share, in micro-batches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from trimtab.models.families import FAMILIES
from trimtab.parallel.criterion import Criterion, Inputs
from trimtab.parallel.strategies.sharded import postpone_sums


class Whole:
    """`model` is called as `module`, which may be DDP around it. `micro_batch` None: a share at once."""

    def __init__(self, model: nn.Module, module: nn.Module, micro_batch: int | None) -> None:
        self._model, self._module, self._micro_batch = model, module, micro_batch
        config: Any = getattr(model, "config", None)
        self._decoder = hasattr(model, "generate") and getattr(config, "model_type", "") in FAMILIES

    def backward(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion, scale: float) -> float:
        pieces = self._pieces(inputs, targets)
        total = 0.0
        for number, (piece, wanted) in enumerate(pieces):
            last = number == len(pieces) - 1
            postpone_sums(self._model, not last)
            with nullcontext() if last else self._without_sums():
                loss = criterion(_call(self._module, piece, decoder=self._decoder), wanted)
                (loss * scale).backward()
            total += loss.item()
        return total

    @torch.no_grad()
    def total(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion) -> float:
        return criterion(_call(self._model, inputs, decoder=self._decoder), targets).item()

    def _pieces(self, inputs: Inputs, targets: torch.Tensor) -> list[tuple[Inputs, torch.Tensor]]:
        size = self._micro_batch or max(1, len(targets))
        wanted = targets.split(size)
        if isinstance(inputs, torch.Tensor):
            return list(zip(inputs.split(size), wanted, strict=True))
        split = {name: values.split(size) for name, values in inputs.items()}
        return [({name: parts[i] for name, parts in split.items()}, part) for i, part in enumerate(wanted)]

    def _without_sums(self) -> AbstractContextManager[None]:
        """DDP keeps gradients, which are whole anyway, on this rank until the last micro-batch."""
        return self._module.no_sync() if isinstance(self._module, DistributedDataParallel) else nullcontext()


def _call(module: nn.Module, inputs: Inputs, *, decoder: bool) -> Any:
    """Its output; of a library model's record, the logits."""
    if isinstance(inputs, Mapping):
        output = module(**inputs)
    elif decoder:
        output = module(input_ids=inputs, use_cache=False)
    else:
        output = module(inputs)
    return getattr(output, "logits", output)
