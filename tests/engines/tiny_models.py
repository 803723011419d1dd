"""Small random models of the five families: every way of sharing heads and placing tokens that they know."""

from pathlib import Path

VOCABULARY, CONTEXT = 384, 128
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gpt2")
_SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    # Larger than usual: the answers of a random model must not be all one token.
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def configuration(family, **changes):
    """Tied and untied heads, grouped and full attention, wide heads, scaled positions, no end token or two."""
    import transformers

    if family == "gpt2":
        shape = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
        special = {"bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.15}
        return transformers.GPT2Config(**{**shape, **special, **changes})
    if family == "llama":
        scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
        own = {"tie_word_embeddings": True, "rope_parameters": scaled}
        return transformers.LlamaConfig(**{**_SHARED, **own, **changes})
    if family == "qwen2":
        own = {"tie_word_embeddings": False, "eos_token_id": [1, 2]}
        return transformers.Qwen2Config(**{**_SHARED, **own, **changes})
    if family == "qwen3":
        own = {"tie_word_embeddings": True, "head_dim": 32}
        return transformers.Qwen3Config(**{**_SHARED, **own, **changes})
    own = {
        "tie_word_embeddings": False,
        "sliding_window": None,
        "num_key_value_heads": 4,
        "eos_token_id": None,
    }
    return transformers.MistralConfig(**{**_SHARED, **own, **changes})


def make_artifact(folder, family, **changes):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(FAMILIES.index(family))
    model = AutoModelForCausalLM.from_config(configuration(family, **changes)).eval()
    model.save_pretrained(folder)
    return Path(folder)
