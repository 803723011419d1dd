"""Small random decoders of every family, and what the tests of this room ask of them.

Weights are large enough that every part has a say in the output.
"""

import torch

from trimtab.compression.pruning.blocks import Blocks
from trimtab.compression.pruning.sequential import Sequential
from trimtab.compression.shapes import Shape, whole
from trimtab.models.families import FAMILIES
from trimtab.models.info import ModelInfo

FAMILY_NAMES = ("llama", "qwen2", "qwen3", "mistral", "gpt2")
LENGTH = 24


def config_of(name, **changes):
    import transformers

    common = {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.25,
        "head_dim": 8,
    }
    makers = {
        "llama": lambda: transformers.LlamaConfig(**common | {"tie_word_embeddings": True} | changes),
        "qwen2": lambda: transformers.Qwen2Config(**common | changes),
        "qwen3": lambda: transformers.Qwen3Config(**common | {"head_dim": 16} | changes),
        "mistral": lambda: transformers.MistralConfig(**common | {"sliding_window": None} | changes),
        "gpt2": lambda: transformers.GPT2Config(
            **{"vocab_size": 96, "n_embd": 32, "n_inner": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}
            | {"bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.25}
            | changes
        ),
    }
    return makers[name]()


def build(name, *, seed=0, **changes):
    """A model with biases and norms that are not at their starting values."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(name, **changes), dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        # As in trained models, hidden states lie near few directions, so features say much about each other.
        embedding = model.get_input_embeddings().weight
        few = torch.randn(len(embedding), 6) @ torch.randn(6, embedding.shape[1])
        embedding.copy_(0.2 * few + 0.02 * torch.randn_like(embedding))
    return model


def family_of(model):
    return FAMILIES[model.config.model_type]


def info_of(model):
    config, keys = model.config, family_of(model).keys
    heads = getattr(config, keys.heads)
    head_dim = getattr(config, keys.head_dim) if keys.head_dim and hasattr(config, keys.head_dim) else None
    return ModelInfo(
        family=config.model_type,
        architecture=type(model).__name__,
        layers=getattr(config, keys.layers),
        hidden=getattr(config, keys.hidden),
        heads=heads,
        kv_heads=getattr(config, keys.kv_heads) if keys.kv_heads else heads,
        head_dim=head_dim or getattr(config, keys.hidden) // heads,
        ffn=getattr(config, keys.ffn),
        vocabulary=config.vocab_size,
        context=getattr(config, keys.context),
        tied=config.tie_word_embeddings,
        eos_ids=(0,),
        parameters=sum(p.numel() for p in model.parameters()),
        weights_bytes=0,
    )


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=torch.as_tensor(tokens), use_cache=False).logits


def blocks_of(model, length):
    return Blocks(model, family_of(model), length)


def shape_of(model, **changes):
    shape = whole(info_of(model))
    return Shape(**{"layers": shape.layers, "ffn": shape.ffn, "kv_heads": shape.kv_heads} | changes)


def cuts_of(model, shape, tokens, **settings):
    tokens = torch.as_tensor(tokens)
    return Sequential(blocks_of(model, tokens.shape[1]), info_of(model), shape, **settings).run(tokens)
