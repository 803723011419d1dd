"""A new model from a recipe's architecture: stock transformers config and module, seeded weights."""

from __future__ import annotations

import json
from pathlib import Path

from trimtab.models.load import save
from trimtab.spec.architectures import Architecture
from trimtab.spec.errors import ModelError


def create(architecture: Architecture, tokenizer_folder: Path, folder: Path, seed: int) -> Path:
    """Write the untrained float32 model with the tokenizer's files. Equal seeds, equal weights.

    The vocabulary is the tokenizer's true size, which a small corpus may leave below what the recipe asks.
    Returns `folder`.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary, eos_id = _vocabulary(tokenizer_folder)
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return save(model, folder, tokenizer_folder)


def create_like(model: Path, folder: Path, seed: int) -> Path:
    """An untrained model of the very shape and tokenizer of the folder `model`. Returns `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return save(fresh, folder, model)


def _vocabulary(folder: Path) -> tuple[int, int]:
    """Number of token ids, and the id of the end-of-text token."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError("the folder has no tokenizer.json.", where=str(folder))
    tokenizer = Tokenizer.from_file(str(path))
    settings = json.loads((folder / "tokenizer_config.json").read_bytes())
    eos_id = tokenizer.token_to_id(settings.get("eos_token") or "")
    if eos_id is None:
        raise ModelError(
            "the tokenizer has no end-of-text token.", where=str(folder / "tokenizer_config.json")
        )
    return tokenizer.get_vocab_size(), eos_id
