"""Models on disk and text for the tests of this room."""

import numpy as np
import pytest
from families_under_test import LENGTH


@pytest.fixture
def save_model(tmp_path):
    """`save_model(model)` → a folder with a byte-level tokenizer and a licence."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    def save(model, name="source"):
        folder = tmp_path / name
        model.save_pretrained(folder)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())[:95]
        vocabulary = {"<|endoftext|>": 0} | {letter: number + 1 for number, letter in enumerate(alphabet)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
        )
        (folder / "LICENSE").write_text("do as you like")
        return folder

    return save


@pytest.fixture(scope="session")
def windows():
    """Token ids (40, LENGTH) with some order: a noisy walk over the vocabulary."""
    generator = np.random.default_rng(3)
    steps = generator.choice([1, 2, 5, 40], size=(40, LENGTH), p=[0.5, 0.25, 0.15, 0.1])
    return (steps.cumsum(axis=1) + generator.integers(0, 96, (40, 1))) % 96


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)
