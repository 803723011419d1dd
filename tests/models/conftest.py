"""Small random models of every family, as stock transformers saves them."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def config_of(name, **changes):
    import transformers

    common = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.1,
    }
    makers = {
        "llama": lambda: transformers.LlamaConfig(**common | {"tie_word_embeddings": True} | changes),
        "qwen2": lambda: transformers.Qwen2Config(**common | changes),
        "qwen3": lambda: transformers.Qwen3Config(**common | {"head_dim": 16} | changes),
        "mistral": lambda: transformers.MistralConfig(
            **common | {"head_dim": 8, "sliding_window": None} | changes
        ),
        "gpt2": lambda: transformers.GPT2Config(
            **{"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
            | {"bos_token_id": 0, "eos_token_id": 0}
            | changes
        ),
    }
    return makers[name]()


@pytest.fixture
def config_values():
    """`config_values("llama")` → what its config.json says, in full."""
    return lambda name: {k: v for k, v in config_of(name).to_dict().items() if not k.startswith("_")}


def write_tokenizer(folder):
    """A byte-level tokenizer without merges: 256 bytes and the end of text, id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: number + 1 for number, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
    )


@pytest.fixture
def make_model(tmp_path):
    """`make_model("llama", shard="20KB", tie_word_embeddings=False)` → folder."""

    def make(name, *, shard="1GB", dtype="float32", **changes):
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        folder = tmp_path / f"{name}-stock"
        model = AutoModelForCausalLM.from_config(config_of(name, **changes), dtype=getattr(torch, dtype))
        model.save_pretrained(folder, max_shard_size=shard)
        write_tokenizer(folder)
        return folder

    return make
