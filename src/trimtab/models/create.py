"""A new model from a recipe's architecture: stock transformers config and module, seeded weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from trimtab.models.info import inspect
from trimtab.models.load import save
from trimtab.models.tasks import class_names
from trimtab.spec.architectures import Architecture, BertArchitecture, ResNetArchitecture
from trimtab.spec.errors import ModelError
from trimtab.spec.tasks import Task


def create(architecture: Architecture, tokenizer_folder: Path, folder: Path, seed: int) -> Path:
    """Write the untrained float32 model with the tokenizer's files. Equal seeds, equal weights.

    The vocabulary is the tokenizer's true size, which a small corpus may leave below what the recipe asks.
    Returns `folder`.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from trimtab.models.seeded import seeded

    vocabulary, eos_id = _vocabulary(tokenizer_folder, "eos_token", "end-of-text")
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=architecture.hidden,
        intermediate_size=architecture.ffn,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads or architecture.heads,
        head_dim=architecture.hidden // architecture.heads,
        max_position_embeddings=architecture.context,
        tie_word_embeddings=architecture.tied,
        bos_token_id=eos_id,
        eos_token_id=eos_id,
    )
    with seeded(seed):
        model = LlamaForCausalLM(config)
    return save(model, folder, tokenizer_folder)


def create_encoder(
    architecture: BertArchitecture,
    task: Task,
    tokenizer_folder: Path,
    folder: Path,
    *,
    classes: Sequence[str],
    seed: int,
) -> Path:
    """The same of an encoder, for fill-mask or for the classification of texts. Returns `folder`."""
    from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

    from trimtab.models.seeded import seeded

    vocabulary, pad_id = _vocabulary(tokenizer_folder, "pad_token", "padding")
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=architecture.hidden,
        intermediate_size=architecture.ffn,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        max_position_embeddings=architecture.context,
        hidden_dropout_prob=architecture.dropout,
        attention_probs_dropout_prob=architecture.dropout,
        pad_token_id=pad_id,
        **class_names(classes),
    )
    with seeded(seed):
        model = BertForMaskedLM(config) if task == "fill-mask" else BertForSequenceClassification(config)
    return save(model, folder, tokenizer_folder)


def create_image_model(
    architecture: ResNetArchitecture,
    preprocessor_folder: Path,
    folder: Path,
    *,
    channels: int,
    classes: Sequence[str],
    seed: int,
) -> Path:
    """The same of a residual network for images of so many channels. Returns `folder`."""
    from transformers import ResNetConfig, ResNetForImageClassification

    from trimtab.models.seeded import seeded

    wider = 4 if architecture.block == "bottleneck" else 1
    config = ResNetConfig(
        num_channels=channels,
        embedding_size=architecture.widths[0],
        hidden_sizes=[width * wider for width in architecture.widths],
        depths=architecture.layers,
        layer_type=architecture.block,
        **class_names(classes),
    )
    with seeded(seed):
        model = ResNetForImageClassification(config)
    return save(model, folder, preprocessor_folder)


def create_like(model: Path, folder: Path, seed: int) -> Path:
    """An untrained model of the very shape and tokenizer of the folder `model`. Returns `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from trimtab.models.seeded import seeded

    config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    config.tie_word_embeddings = inspect(model).tied
    with seeded(seed):
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return save(fresh, folder, model)


def _vocabulary(folder: Path, key: str, what: str) -> tuple[int, int]:
    """Number of token ids, and the id of the token that the tokenizer's config names under `key`."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError("the folder has no tokenizer.json.", where=str(folder))
    tokenizer = Tokenizer.from_file(str(path))
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    number = tokenizer.token_to_id(settings.get(key) or "")
    if number is None:
        raise ModelError(f"the tokenizer has no {what} token.", where=str(folder / "tokenizer_config.json"))
    return tokenizer.get_vocab_size(), number
