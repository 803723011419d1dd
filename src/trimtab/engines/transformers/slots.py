"""A KV cache of slots: one row a request, each as long as it is, so that requests of any length share a batch.

The model is told which rows a call is about, at which positions its tokens stand, and how far to look. What a
row holds beyond its own length is stale; the mask hides it, and it is always finite.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from trimtab.engines.refusals import attention_window

# Capacity grows by doubling from here, so that short texts stay cheap.
_FIRST_TOKENS = 64


class _Layer(DynamicLayer):
    """Keys and values (rows, heads, capacity, head_dim) of one layer."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self._slots = slots

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (batch, heads, new, head_dim) and return everything up to the longest row of the call."""
        rows, positions, total = self._slots.rows, self._slots.positions, self._slots.total
        self.keys = self._grown(self.keys, key_states)
        self.values = self._grown(self.values, value_states)
        # An index on either side of a slice puts the indexed axes first: (batch, new, heads, head_dim).
        self.keys[rows[:, None], :, positions] = key_states.transpose(1, 2)
        self.values[rows[:, None], :, positions] = value_states.transpose(1, 2)
        self.is_initialized = True
        return self.keys[rows, :, :total], self.values[rows, :, :total]

    def get_seq_length(self) -> int:
        return self._slots.total

    def _grown(self, held: torch.Tensor | None, new: torch.Tensor) -> torch.Tensor:
        rows, capacity = self._slots.shape
        if held is not None and held.shape[0] >= rows and held.shape[2] >= capacity:
            return held
        grown = new.new_zeros(rows, new.shape[1], capacity, new.shape[3])
        if held is not None:
            grown[: held.shape[0], :, : held.shape[2]] = held
        return grown


class Slots:
    """The cache, and what the call under way is about."""

    def __init__(self, config: PretrainedConfig, layers: int, *, device: torch.device) -> None:
        self.cache = DynamicCache()
        self.cache.layers = [_Layer(self) for _ in range(layers)]
        self.rows = self.positions = torch.zeros(0, dtype=torch.long, device=device)
        self.total = 0
        self.shape = (1, _FIRST_TOKENS)
        self._config, self._device = config, device

    def call(self, rows: list[int], starts: list[int], new: int, dtype: torch.dtype) -> dict[str, Any]:
        """Arguments for the model: `new` tokens go to each of `rows`, whose lengths so far are `starts`."""
        self.rows = torch.tensor(rows, device=self._device)
        first = torch.tensor(starts, device=self._device)
        self.positions = first[:, None] + torch.arange(new, device=self._device)
        self.total = max(starts) + new
        capacity = self.shape[1]
        while capacity < self.total:
            capacity *= 2
        self.shape = (max(self.shape[0], *(row + 1 for row in rows)), capacity)
        return {
            "attention_mask": self._mask(dtype),
            "position_ids": self.positions,
            "cache": self.cache,
            "use_cache": True,
        }

    def _mask(self, dtype: torch.dtype) -> torch.Tensor | dict[str, torch.Tensor]:
        """(batch, 1, new, total), 0 where a token may look and the lowest number where not.

        Models with layers of both kinds take one mask a kind.
        """
        places = torch.arange(self.total, device=self._device)
        here = self.positions[:, None, :, None]
        full = places <= here
        window = attention_window(self._config)
        if window is None:
            return _additive(full, dtype)
        near = full & (places > here - window)
        if getattr(self._config, "layer_types", None) is None:
            return _additive(near, dtype)
        return {"full_attention": _additive(full, dtype), "sliding_attention": _additive(near, dtype)}


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    lowest = torch.finfo(dtype).min
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, lowest)
