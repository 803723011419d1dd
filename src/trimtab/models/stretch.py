"""A stretch of a stock decoder as one module: perhaps the embedding, some layers, perhaps the norm and head.

The layers are the stock ones, called as the stock model calls them; what is different is that positions may start
in the middle of a sequence, and that hidden states may hold a part of it. Pipelines, tensor and context
parallelism need that; the whole stretch computes what the stock model does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from trimtab.models.families import Family, family
from trimtab.models.tying import is_tied
from trimtab.spec.errors import UsageError


class Stretch(nn.Module):
    """`layers` are indices of the stock model. (n, length) ids or (n, part, hidden) states → states or logits.

    `split` is how many ranks share the length that a hidden state spans (sequence parallelism); `first` of
    `of` names which part of the whole sequence that length is (context parallelism). `attention` is passed
    on to the attention function.
    """

    def __init__(self, model: nn.Module, layers: range, *, starts: bool, ends: bool) -> None:
        super().__init__()
        self.family = known = family_of(model)
        config: Any = model.config
        self.config = config
        embedding, head = (name.removesuffix(".weight") for name in (known.embedding, known.head))
        self._stock = {"embedding": embedding, "layers": known.layers, "norm": known.final_norm, "head": head}
        self._tied = is_tied(model)
        self.embedding = model.get_submodule(embedding) if starts else None
        self.positions = _part(model, known.positions) if starts else None
        self.dropout = _part(model, known.embedding_dropout) if starts else None
        if known.positions:
            self._stock["positions"] = known.positions
        self.rotary = _part(model, known.rotary)
        self.layers = nn.ModuleDict({str(index): model.get_submodule(known.layer(index)) for index in layers})
        self.norm = model.get_submodule(known.final_norm) if ends else None
        self.head = model.get_submodule(head) if ends else None
        self.split, self.part, self.parts = 1, 0, 1
        self.attention: dict[str, Any] = {}

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        length = values.shape[1] * (1 if self.embedding is not None else self.split)
        self._refuse_window(length * self.parts)
        begin = self.part * length
        # Positions of the whole sequence, then cut: cosines of a part alone may differ in their last bit.
        places = torch.arange(length * self.parts, device=values.device).unsqueeze(0)
        if self.embedding is not None:
            values = self.embedding(values)
            if self.positions is not None:
                values = values + self.positions(places[:, begin : begin + length])
            if self.dropout is not None:
                values = self.dropout(values)
        arguments = dict(self.attention)
        if self.rotary is not None:
            rotation = self.rotary(values, position_ids=places)
            arguments["position_embeddings"] = tuple(part[:, begin : begin + length] for part in rotation)
        for layer in self.layers.values():
            values = layer(values, attention_mask=None, use_cache=False, **arguments)
        if self.norm is not None and self.head is not None:
            values = self.head(self.norm(values))
        return values

    def stock_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Its parameters under the stock model's names; a tied head under the embedding's."""
        for name, parameter in self.named_parameters():
            field, _, rest = name.partition(".")
            tied = field == "head" and self._tied and rest == "weight"
            yield (self.family.embedding if tied else f"{self._stock[field]}.{rest}"), parameter

    def _refuse_window(self, length: int) -> None:
        window = getattr(self.config, "sliding_window", None)
        kinds = getattr(self.config, "layer_types", None)
        if window and length > window and (kinds is None or "sliding_attention" in kinds):
            raise UsageError(
                f"sequences of {length} are longer than the attention window of {window}.",
                where="parallel",
                remedy="Use data and shard alone, or shorter sequences.",
            )


def family_of(model: nn.Module) -> Family:
    """Raises `ModelError` for a module that is no decoder we know."""
    config: Any = getattr(model, "config", None)
    return family(str(getattr(config, "model_type", type(model).__name__)), where="parallel")


def _part(model: nn.Module, name: str | None) -> nn.Module | None:
    return model.get_submodule(name) if name else None
