"""Which weights an optimizer moves, and how: Muon for the layers' matrices and AdamW for the rest, or AdamW.

The state is a flat mapping of names to tensors, so checkpoints know nothing of optimizers. AdamW moves what a rank
holds of each weight, however it was cut; Muon needs whole matrices.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from trimtab.models.families import family
from trimtab.parallel.distributed import Distributed
from trimtab.parallel.ranks import Ranks
from trimtab.spec.layout import refuse_muon
from trimtab.training.job import TrainJob
from trimtab.training.muon import Muon

_BETAS = (0.9, 0.95)


class Optimizers:
    """All optimizers of one model. `step(factor)` takes the schedule's factor on the peak rates."""

    def __init__(self, model: nn.Module, distributed: Distributed, job: TrainJob, ranks: Ranks) -> None:
        """`model` is the one that was laid out. Raises `UsageError` for Muon where matrices are cut."""
        self._parts = {name: part for name, part in distributed.parts.items() if part.local.requires_grad}
        parameters = {name: part.local for name, part in self._parts.items()}
        matrices = matrix_names(model, parameters) if job.optimizer == "muon" else []
        self._muon = None
        self._muon_rate = job.learning_rate
        if matrices:
            refuse_muon(distributed.grid.layout)
            chosen = {name: parameters[name] for name in matrices}
            self._muon = Muon(chosen, ranks, weight_decay=job.weight_decay)
        self._rest = {name: weight for name, weight in parameters.items() if name not in set(matrices)}
        self._adamw_rate = job.embedding_learning_rate if matrices else job.learning_rate
        # Under Muon the rest is embeddings, norms and biases, which are not decayed.
        decayed = [] if matrices else [weight for weight in self._rest.values() if weight.ndim > 1]
        others = [weight for weight in self._rest.values() if not any(weight is one for one in decayed)]
        groups = [
            {"params": decayed, "weight_decay": job.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=self._adamw_rate, betas=_BETAS, fused=True
        )
        for weight in self._rest.values():
            self._adamw.state[weight] = {
                "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                "exp_avg": torch.zeros_like(weight),
                "exp_avg_sq": torch.zeros_like(weight),
            }

    def step(self, factor: float) -> None:
        if self._muon is not None:
            self._muon.step(self._muon_rate * factor)
        for group in self._adamw.param_groups:
            group["lr"] = self._adamw_rate * factor
        self._adamw.step()

    def reach(self, rounding: float) -> dict[str, torch.Tensor]:
        """How far the last step may have moved each element that AdamW moves for a gradient wrong by `rounding` alone.

        Adam divides by the root of the second moment: where the true gradient is next to nothing, as those of keys'
        biases, a step goes where rounding points.
        """
        found = {}
        for group in self._adamw.param_groups:
            for weight in group["params"]:
                state = self._adamw.state[weight]
                second = state["exp_avg_sq"] / (1 - _BETAS[1] ** state["step"].item())
                found[id(weight)] = (group["lr"] * rounding / (second.sqrt() + group["eps"])).clamp(
                    max=2 * group["lr"]
                )
        return {name: found[id(weight)] for name, weight in self._rest.items()}

    def state(self) -> dict[str, torch.Tensor]:
        """Live tensors: copying into them restores the state."""
        tensors = {}
        for name, weight in self._rest.items():
            for key, value in self._adamw.state[weight].items():
                tensors[f"adamw.{name}.{key}"] = value if key == "step" else self._parts[name].whole(value)
        if self._muon is not None:
            tensors |= {f"muon.{name}": momentum for name, momentum in self._muon.state().items()}
        return tensors


def matrix_names(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """The matrices inside the decoder's layers: neither embeddings nor the head."""
    known = family(str(getattr(model.config, "model_type", "")), where="model")
    return [
        name
        for name, weight in parameters.items()
        if weight.ndim == 2 and name.startswith(f"{known.layers}.")
    ]
