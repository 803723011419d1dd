"""A model laid out over ranks: what a training loop needs of it, whatever the layout.

A step is `backward`, `clip`, and an optimizer's step over `parameters()`, which `step` finishes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trimtab.parallel.criterion import Criterion, Inputs, Runner
from trimtab.parallel.mesh import Grid
from trimtab.parallel.strategies.parts import Part, norm_of
from trimtab.parallel.strategies.replicated import add_up
from trimtab.parallel.strategies.zero import exchange_rows
from trimtab.spec.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Distributed:
    """`stages` are the modules on this rank, `parts` what it holds of the weights, under the model's own names.

    `tied` is a weight at both ends of a pipeline, `unsummed` weights whose gradients differ over tensor
    ranks; `averaged` is by how many ranks DDP or FSDP divide gradients.
    """

    grid: Grid
    stages: Mapping[int, nn.Module]
    parts: Mapping[str, Part]
    runner: Runner
    tied: str | None
    unsummed: set[str]
    averaged: int

    def parameters(self) -> Iterator[nn.Parameter]:
        """What an elementwise optimizer (Adam, SGD) moves on this rank: plain tensors, in a fixed order."""
        return (part.local for part in self.parts.values())

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """The share of this rank in a whole batch, by its first axis."""
        index, shares = self.grid.share, self.grid.shares
        return batch[len(batch) * index // shares : len(batch) * (index + 1) // shares]

    def backward(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion, count: float) -> float:
        """Gradients of the mean loss of the global batch, from this rank's share of it.

        `criterion` sums over the share, which has `count` of what is averaged over (samples, valid tokens).
        Returns this rank's part of the mean: over all ranks they add up to it.
        """
        # Needed for the loss; the forward pass need not wait for the other ranks.
        total = self.grid.ranks.start_sum(float(count if self.counts else 0))
        inputs, targets = self._stretch(inputs, targets)
        # A batch of which nothing counts teaches nothing: its loss is 0, not 0 ÷ 0.
        loss = self.runner.backward(
            inputs, targets, lambda *pair: criterion(*pair) / max(1.0, total()), self.averaged
        )
        self._finish_gradients()
        return loss / (self.grid.layout.tensor * self.grid.layout.pipeline)

    def total(self, inputs: Inputs, targets: torch.Tensor, criterion: Criterion) -> float:
        """The part of this rank in the criterion over all ranks' shares, without gradients."""
        inputs, targets = self._stretch(inputs, targets)
        total = self.runner.total(inputs, targets, criterion)
        return total / (self.grid.layout.tensor * self.grid.layout.pipeline)

    @property
    def counts(self) -> bool:
        """Whether this rank is the one of its share of the batch that counts it, where several compute it together."""
        return self.grid.context_index == self.grid.index("tensor") == self.grid.index("pipeline") == 0

    def clip(self, limit: float) -> torch.Tensor:
        """Scale gradients so that their norm over all ranks is at most `limit`; returns the norm before."""
        if self.whole:
            parameters = [part.parameter for part in self.parts.values()]
            return torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        norm = norm_of(list(self.parts.values()), self.grid)
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for part in self.parts.values():
            if part.local.grad is not None:
                part.local.grad.mul_(factor.to(part.local.grad))
        return norm

    def mean(self, loss: float) -> float:
        """The whole batch's mean loss from this rank's part of it. Every rank must call it."""
        part = torch.tensor(loss, dtype=torch.float64, device=self.grid.ranks.device)
        return self.grid.ranks.sum(part).item()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer over `parameters()` move the weights."""
        optimizer.step()
        self.finish_step()

    def finish_step(self) -> None:
        """After an optimizer's step: weights are whole again where its state is shared; gradients are gone."""
        exchange_rows(list(self.parts.values()), self.grid)
        for part in self.parts.values():
            part.parameter.grad = part.local.grad = None

    def weights(self) -> dict[str, torch.Tensor]:
        """Live weights and kept statistics as checkpoints take them: tensors, or a rank's parts of them."""
        parameters = {name: part.parameter.detach() for name, part in self.parts.items()}
        buffers = {name: held for stage in self.stages.values() for name, held in _kept_buffers(stage)}
        return parameters | buffers

    @property
    def whole(self) -> bool:
        """Whether every rank holds all weights, gradients and optimizer state."""
        return self.grid.layout.whole

    def train(self, mode: bool = True) -> None:
        for stage in self.stages.values():
            stage.train(mode)

    def _stretch(self, inputs: Inputs, targets: torch.Tensor) -> tuple[Inputs, torch.Tensor]:
        """Of every sequence the stretch of this rank; targets may be longer than inputs by what they overlap."""
        if self.grid.layout.length_multiple == 1:
            return inputs, targets
        if not isinstance(inputs, torch.Tensor) or inputs.shape[1] % self.grid.layout.length_multiple:
            raise UsageError(
                "sequences cannot be shared evenly over the ranks.",
                where="parallel",
                remedy="Make sequence_length a multiple of context × tensor.",
            )
        length = inputs.shape[1] // self.grid.layout.context
        begin = self.grid.context_index * length
        longer = targets.shape[1] - inputs.shape[1]
        return inputs.narrow(1, begin, length), targets.narrow(1, begin, length + longer)

    def _finish_gradients(self) -> None:
        """Sums that neither DDP, FSDP nor DTensor makes, and gradients where optimizers look for them."""
        if self.whole and self.averaged == self.grid.replicas:
            return
        gradients = {name: part.gradient() for name, part in self.parts.items() if part.local.requires_grad}
        if self.unsummed:
            add_up([gradients[name] for name in sorted(self.unsummed)], self.grid.group("tensor"))
        if self.tied is not None and self.grid.ends_group is not None:
            add_up([gradients[self.tied]], self.grid.ends_group)
        if self.averaged == 1 and self.grid.replicas > 1:
            add_up(list(gradients.values()), self.grid.group("replicate"))
        for name, gradient in gradients.items():
            part = self.parts[name]
            part.local.grad = gradient if part.rows is None else gradient[part.rows]


def _kept_buffers(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that belong to a saved model, such as the running statistics of batch norms. Decoders have none."""
    for prefix, part in module.named_modules():
        left_out = part._non_persistent_buffers_set  # noqa: SLF001 (nothing public says which are kept)
        for name, held in part.named_buffers(recurse=False):
            if name not in left_out:
                yield (f"{prefix}.{name}" if prefix else name), held
