"""Whether a model's head and embedding are one weight. A config may say otherwise than the files hold.

Stock transformers keeps two weights where a config says `tie_word_embeddings` and the files hold two that differ, as
after merging adapters that trained one of them. So the loaded model is asked; its files are by `models.expected`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def is_tied(model: nn.Module) -> bool:
    """Of a stock model; False for one without a head over its vocabulary."""
    known: Any = model
    head = known.get_output_embeddings()
    return head is not None and head.weight is known.get_input_embeddings().weight


def say_what_is_tied(model: PreTrainedModel) -> None:
    """Correct a config by the model that it belongs to: who builds or loads another one by it gets the same weights.

    One word ties every pair of a model (a masked model's head and its bias). Where it holds for some of them it stays,
    and stock, which compares the pairs in a file one by one, reads them right.
    """
    says = getattr(model.config, "tie_word_embeddings", False)
    pairs = model.get_expanded_tied_weights_keys() if says else {}
    if pairs and not any(model.get_parameter(one) is model.get_parameter(of) for one, of in pairs.items()):
        model.config.tie_word_embeddings = False
    elif not says and is_tied(model):
        model.config.tie_word_embeddings = True
