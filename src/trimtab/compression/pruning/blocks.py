"""A stock decoder run half a block at a time: `x + attention(norm(x))`, then `h + ffn(norm(h))`.

All five families are pre-norm, so a block is these two halves, and each half ends in one output matrix whose
inputs ("features": head outputs, FFN neurons) are what pruning removes. Runs on windows of one length,
without padding or cache; never changes the model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from trimtab.models.families import Family

Half = Literal["attention", "ffn"]
HALVES: tuple[Half, ...] = ("attention", "ffn")
# Tokens that are run at a time: enough to keep a matrix product busy, few enough to bound memory.
BATCH_TOKENS = 4096


class _Reached(Exception):  # noqa: N818 - ends a forward pass early, it is no fault
    """The first block was reached."""


def stores_outputs_first(family: Family) -> bool:
    """Whether matrices are (out, in), as in Linear; GPT-2's Conv1D has them (in, out)."""
    return any(cut.tensor == f"{family.down}.weight" and cut.axis == 1 for cut in family.ffn_cuts)


class Blocks:
    """Wraps a model for windows of `length` tokens. Hidden states are (n, length, hidden) float32."""

    def __init__(self, model: PreTrainedModel, family: Family, length: int) -> None:
        self._model, self._family = model.eval(), family
        container = model.get_submodule(family.layers)
        self.count = len(list(container.children()))
        self.rows = max(1, BATCH_TOKENS // length)
        self._attention_arguments = self._capture(length)

    def module(self, layer: int, name: str) -> nn.Module:
        return self._model.get_submodule(f"{self._family.layer(layer)}.{name}")

    def output(self, layer: int, half: Half) -> nn.Module:
        """The matrix that ends a half: o_proj or down_proj, or GPT-2's two c_proj."""
        return self.module(layer, self._family.attention_out if half == "attention" else self._family.down)

    def output_matrix(self, layer: int, half: Half) -> Tensor:
        """A view of that matrix as (features, hidden), whichever way the family stores it."""
        weight = self.output(layer, half).get_parameter("weight").detach()
        return weight.T if stores_outputs_first(self._family) else weight

    def output_bias(self, layer: int, half: Half) -> Tensor | None:
        bias = getattr(self.output(layer, half), "bias", None)
        return None if bias is None else bias.detach()

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of `count` windows, each small enough to run at once."""
        for start in range(0, count, self.rows):
            yield slice(start, min(start + self.rows, count))

    @torch.no_grad()
    def embed(self, tokens: Tensor) -> Tensor:
        """What goes into the first block, for token ids (n, length)."""
        first = self._model.get_submodule(self._family.layer(0))
        return self._reach(first, lambda: self._model(input_ids=tokens, use_cache=False))

    @torch.no_grad()
    def run_half(self, layer: int, half: Half, hidden: Tensor) -> Tensor:
        """One half block: hidden states in, hidden states out."""
        first, second = self._family.norms
        if half == "ffn":
            return hidden + self.module(layer, self._family.mlp)(self.module(layer, second)(hidden))
        args, kwargs = self._attention_arguments[layer]
        normed = self.module(layer, first)(hidden)
        return hidden + self.module(layer, self._family.attention)(normed, *args, **kwargs)[0]

    def run(self, layer: int, hidden: Tensor) -> Tensor:
        for half in HALVES:
            hidden = self.run_half(layer, half, hidden)
        return hidden

    @torch.no_grad()
    def features(self, layer: int, half: Half, hidden: Tensor) -> Tensor:
        """What goes into the half's output matrix: (n, length, features)."""
        return self._reach(self.output(layer, half), lambda: self.run_half(layer, half, hidden))

    @staticmethod
    def _reach(module: nn.Module, run: Callable[[], object]) -> Tensor:
        """What `module` is given when `run` gets to it. Nothing after that is computed."""
        found: list[Tensor] = []

        def _stop(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            found.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        handle = module.register_forward_pre_hook(_stop, with_kwargs=True)
        with contextlib.suppress(_Reached):
            try:
                run()
            finally:
                handle.remove()
        return found[0]

    @torch.no_grad()
    def nll(self, hidden: Tensor, tokens: Tensor) -> float:
        """Sum in nats over tokens 1 … length-1 of each window, from what leaves the last block."""
        normed = self._model.get_submodule(self._family.final_norm)(hidden[:, :-1])
        logits = self._model.get_output_embeddings()(normed)  # pyrefly: ignore[not-callable]
        return float(functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum"))

    @torch.no_grad()
    def _capture(self, length: int) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What each attention is given beside hidden states (positions, masks), seen on one window of zeros.

        Taken from one window, they have a batch dimension of 1 and broadcast over any number of windows.
        """
        seen: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        handles = []
        for layer in range(self.count):

            def _see(
                _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int = layer
            ) -> None:
                rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
                seen[layer] = (args[1:], rest)

            attention = self.module(layer, self._family.attention)
            handles.append(attention.register_forward_pre_hook(_see, with_kwargs=True))
        try:
            device = next(self._model.parameters()).device
            self._model(input_ids=torch.zeros(1, length, dtype=torch.long, device=device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        return [seen[layer] for layer in range(self.count)]
