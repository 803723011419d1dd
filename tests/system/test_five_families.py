"""Somebody's own folder, of every family, from an empty home: `optimize` without training, then `serve`.

What is served has to be the model: its greedy answers are those of transformers in float32, up to near-ties.
"""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
import torch
import transformers

from trimtab.data.tokenizer import train_bpe

FAMILIES = {
    "llama": (transformers.LlamaConfig, {"tie_word_embeddings": True}),
    "qwen2": (transformers.Qwen2Config, {"tie_word_embeddings": False}),
    "qwen3": (transformers.Qwen3Config, {"tie_word_embeddings": True, "head_dim": 32}),
    "mistral": (transformers.MistralConfig, {"tie_word_embeddings": False, "sliding_window": None}),
    "gpt2": (transformers.GPT2Config, {}),
}
NEAR_TIE = 1e-3


PROMPTS = ("def main(", "import os\n", "class Parser:\n    def __init__(self")
ANSWER = 16


def _text() -> str:
    return (Path(sysconfig.get_paths()["stdlib"]) / "argparse.py").read_text(encoding="utf-8")


def _folder(parent: Path, family: str) -> Path:
    """A small random model with a tokenizer; the weights are wide enough that answers vary."""
    kind, own = FAMILIES[family]
    folder = train_bpe([_text()], 400, parent / family)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 400}
    if family != "gpt2":
        size |= {"intermediate_size": 160, "num_key_value_heads": 2, "max_position_embeddings": 256}
    config = kind(**size, **own, initializer_range=0.15, bos_token_id=0, eos_token_id=0)
    tokenizer = _tokenizer(folder)
    for seed in range(20):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        # A draw whose two best tokens are as good as equal early on would leave little to compare.
        if all(_is_long(_greedy(model, tokenizer, prompt)) for prompt in PROMPTS):
            model.save_pretrained(folder)
            return folder
    raise AssertionError("no draw of weights gives answers that can be compared")


def _tokenizer(folder: Path):
    """As tokenizer.json says. AutoTokenizer would split words as the family's own tokenizer does, which this is not."""
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TRIMTAB_HOME": str(home), "OMP_NUM_THREADS": "1"}


def _trimtab(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "trimtab", *arguments]
    done = subprocess.run(
        command, check=False, env=_environment(home), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _served(home: Path, target: str):
    """A client of `trimtab serve TARGET`."""
    key = json.loads(_trimtab(home, "keys", "create", "--name", "test", "--json"))["key"]
    service = subprocess.Popen(
        [sys.executable, "-m", "trimtab", "serve", target, "--port", "0"],
        env=_environment(home),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = next(filter(None, (re.search(r"http://[0-9.]+:\d+", line) for line in service.stdout)))
        with openai.OpenAI(base_url=f"{found[0]}/v1", api_key=key, max_retries=0) as client:
            yield client
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=60) == 0
        service.stdout.close()


def _greedy(model, tokenizer, prompt: str) -> list[int]:
    """What the model says, up to the first place where its two best tokens are as good as equal."""
    tokens = tokenizer(prompt, return_tensors="pt").input_ids
    said: list[int] = []
    while len(said) < ANSWER and 0 not in said:
        with torch.inference_mode():
            logits = model(torch.cat([tokens, torch.tensor([said], dtype=torch.long)], dim=1)).logits[0, -1]
        first, second = torch.log_softmax(logits, -1).topk(2).values.tolist()
        if first - second < NEAR_TIE:
            break
        said.append(int(logits.argmax()))
    return said


def _is_long(said: list[int]) -> bool:
    return len(said) >= ANSWER // 2 or said[-1:] == [0]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_optimized_and_served_from_an_empty_home(family: str, tmp_path: Path) -> None:
    folder, home = _folder(tmp_path, family), tmp_path / "home"
    (tmp_path / "held_out.txt").write_text(_text(), encoding="utf-8")
    verdict = json.loads(
        _trimtab(home, "optimize", str(folder), "--data", f"text:{tmp_path / 'held_out.txt'}", "--json")
    )
    assert verdict["feasible"]
    assert verdict["winner"]["name"] == family
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = _tokenizer(folder)
    with _served(home, f"{folder}/") as client:
        for prompt in PROMPTS:
            got = client.completions.create(model=family, prompt=prompt, max_tokens=ANSWER, temperature=0)
            expected = tokenizer.decode(_greedy(model, tokenizer, prompt), skip_special_tokens=True)
            # The last token may be the first bytes of a letter that another token completes.
            assert got.choices[0].text.startswith(expected.rstrip("\N{REPLACEMENT CHARACTER}"))
    with _served(home, family) as client:
        got = client.completions.create(model=family, prompt=PROMPTS[0], max_tokens=ANSWER, temperature=0)
        assert got.usage.completion_tokens >= 1
