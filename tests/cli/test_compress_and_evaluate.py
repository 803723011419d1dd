import json
import sys

import pytest

from trimtab.cli.main import main


@pytest.fixture
def folder(tmp_path):
    """A small random Llama with a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
    )
    path = tmp_path / "a model"
    LlamaForCausalLM(config).save_pretrained(path)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {letter: number + 1 for number, letter in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
    )
    return path


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {number}: {number * number % 97} and so on\n" for number in range(400)))
    return path


@pytest.fixture
def trimtab(tmp_path, monkeypatch, capsys):
    """`trimtab("compress", …)` → (exit code, stdout, stderr), without the start of a process."""
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["trimtab", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return call


def test_a_folder_is_compressed_and_compared_with_its_source(folder, text, trimtab, tmp_path):
    small = tmp_path / "small"
    data = f"text:{text}"
    sizes = ("--layers", 2, "--ffn", 32, "--kv-heads", 1)
    code, out, err = trimtab("compress", folder, *sizes, "--data", data, "--output", small, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (len(report["shape"]["layers"]), report["shape"]["ffn"], report["shape"]["kv_heads"]) == (2, 32, 1)
    assert report["parameters"] < report["source_parameters"]

    settings = ("--against", folder, "--engine", "transformers", "--weight-format", "float32", "--json")
    code, out, err = trimtab("evaluate", small, "--data", data, *settings)
    assert code == 0, err
    found = json.loads(out)
    ratio = found["quality"]["perplexity"]["value"] / found["reference_perplexity"]["value"]
    assert found["quality"]["perplexity_ratio"]["value"] == pytest.approx(ratio)
    assert found["quality"]["kl_mean"]["low"] > 0
    assert found["window_tokens"] == 64


def test_a_folder_against_itself_in_float32_is_itself(folder, text, trimtab):
    settings = ("--engine", "transformers", "--weight-format", "float32", "--window", 32)
    code, out, err = trimtab("evaluate", folder, "--data", f"text:{text}", *settings)
    assert code == 0, err
    assert "perplexity ratio" in out
    assert "windows of 32" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layers", 4), "the model has 3 layers, not 4"),
        (("--ffn", 40), "cannot be cut to 40"),
        (("--kv-heads", 3), "2 KV heads cannot become 3"),
        ((), "nothing is to be removed"),
        (("--ffn", 32, "--data", "jsonl:x"), "Write text:FILE"),
        (("--ffn", 32, "--data", "text:/nowhere.txt"), "cannot be read"),
    ],
    ids=["layers", "ffn", "kv", "nothing", "kind", "file"],
)
def test_wrong_use_is_one_sentence_and_writes_nothing(arguments, message, folder, text, trimtab, tmp_path):
    code, _, err = trimtab(
        "compress", folder, "--data", f"text:{text}", "--output", tmp_path / "small", *arguments
    )
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "small").exists()


def test_an_existing_output_is_not_overwritten(folder, text, trimtab):
    code, _, err = trimtab("compress", folder, "--ffn", 32, "--data", f"text:{text}", "--output", folder)
    assert code == 2
    assert "the output exists already" in err
