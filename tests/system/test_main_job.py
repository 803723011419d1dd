"""The whole job, small, through the command line and the official client: train, optimize, publish, serve."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from functools import partial
from pathlib import Path

import openai
import pytest

RECIPE = """
version: 1
name: tiny
model: {{architecture: llama, layers: 4, hidden: 64, heads: 4, kv_heads: 2, ffn: 128, vocabulary: 400, context: 256}}
data: {{train: {{text: train.txt}}, validation: {{text: validation.txt}}, test: {{text: test.txt}}}}
training: {{tokens: 40k, sequence_length: 64, batch: 16}}
quality: {{retain: 40%}}
traffic: {{concurrency: 4, prompt_tokens: 8, output_tokens: 8}}
search: {{distill_tokens: 10k, methods: [depth, width, int8]}}
parallel: {{data: 2}}
{more}
"""
SOURCES = {
    "train.txt": ["argparse.py", "ast.py", "csv.py", "datetime.py", "decimal.py", "difflib.py"],
    "validation.txt": ["shutil.py"],
    "test.txt": ["inspect.py"],
}


def _write_recipe(folder: Path, more: str = "") -> Path:
    library = Path(sysconfig.get_paths()["stdlib"])
    for name, modules in SOURCES.items():
        text = "\n".join((library / module).read_text(encoding="utf-8") for module in modules)
        (folder / name).write_text(text, encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(more=more), encoding="utf-8")
    return recipe


def _environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TRIMTAB_HOME": str(home), "OMP_NUM_THREADS": "1"}


def _trimtab(home: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab", *arguments],
        check=False,
        env=_environment(home),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A home in which the main job has run once, and its verdict."""
    folder = tmp_path_factory.mktemp("a job")
    home = folder / "home"
    recipe = _write_recipe(folder)
    verdict = json.loads(_trimtab(home, "optimize", str(recipe), "--json").stdout)
    return home, verdict


def test_the_verdict_says_what_was_asked(job: tuple[Path, dict]) -> None:
    _, verdict = job
    assert verdict["feasible"]
    winner = verdict["winner"]
    assert winner["task"] == "text-generation"
    quality = winner["quality"]
    assert quality["metric"] == "perplexity"
    figures = [quality["ratio"], quality["ratio_to_control"], *quality["metrics"].values()]
    for by_concurrency in (winner["speedup"], winner["speedup_over_int8"]):
        assert set(by_concurrency) == {"1", "4"}
        figures += by_concurrency.values()
    assert all(0 <= figure["low"] <= figure["value"] <= figure["high"] for figure in figures)
    assert {"perplexity", "kl_mean", "top1_agreement"} <= set(quality["metrics"])
    assert winner["weights_bytes_ratio"] < 1
    assert winner["memory_ratio"] > 0
    roles = {row["role"] for row in (verdict["baseline"], *verdict["controls"], *verdict["candidates"])}
    assert roles == {"baseline", "control", "int8_only", "candidate"}
    losers = [c for c in verdict["candidates"] if c["name"] != winner["candidate"]]
    assert all(c["reason"] for c in losers)
    assert set(verdict["ngrams"]) == {"unigram", "bigram", "trigram"}
    report = (Path(verdict["run"]) / "report.html").read_text(encoding="utf-8")
    assert winner["candidate"] in report
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", report)


def test_the_same_recipe_again_does_nothing(job: tuple[Path, dict]) -> None:
    home, verdict = job
    again = _trimtab(home, "optimize", str(home.parent / "recipe.yaml"), "--json")
    assert json.loads(again.stdout) == verdict
    assert "ended before" in again.stderr


def test_the_winner_is_served_to_the_official_client(job: tuple[Path, dict]) -> None:
    home, _ = job
    key = json.loads(_trimtab(home, "keys", "create", "--name", "test", "--json").stdout)["key"]
    service = subprocess.Popen(
        [sys.executable, "-m", "trimtab", "serve", "tiny", "--port", "0"],
        env=_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        url = _url(service)
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            ask = partial(
                client.completions.create, model="tiny", prompt="def main(", max_tokens=12, temperature=0
            )
            whole, chunks = ask(), ask(stream=True)
            streamed = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
        assert streamed == whole.choices[0].text
        assert whole.usage.completion_tokens <= 12
        stranger = openai.OpenAI(base_url=f"{url}/v1", api_key="tt_wrong_key", max_retries=0)
        with stranger, pytest.raises(openai.AuthenticationError):
            stranger.models.list()
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(timeout=60) == 0
        service.stdout.close()


def _url(service: subprocess.Popen[str]) -> str:
    for line in service.stdout:
        found = re.search(r"http://[0-9.]+:\d+", line)
        if found:
            return found[0]
    raise AssertionError("the service ended before it said where it is")


def test_a_limit_that_nothing_holds_is_exit_3_with_the_nearest_level(job: tuple[Path, dict]) -> None:
    home, verdict = job
    folder = Path(verdict["run"]) / "models" / "baseline"
    recipe = home.parent / "tight.yaml"
    recipe.write_text(
        f"version: 1\nname: tight\nmodel: {folder}\ndata: {{test: {{text: test.txt}}}}\n"
        "training: {sequence_length: 64, batch: 16}\ntraffic: {concurrency: 2, prompt_tokens: 8, output_tokens: 8}\n"
        "slo: {memory: 1MiB}\nsearch: {distill_tokens: 0, methods: [int8]}\n",
        encoding="utf-8",
    )
    done = _trimtab(home, "optimize", str(recipe), "--json", expect=3)
    tight = json.loads(done.stdout)
    assert not tight["feasible"]
    assert tight["winner"] is None
    assert "MiB" in tight["nearest"]["slo.memory"]
    listed = json.loads(_trimtab(home, "models", "ls", "--json").stdout)
    assert "tight" not in json.dumps(listed)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2, 6, 10, 16, 24, 35])
def test_killed_at_any_moment_the_next_run_goes_on(tmp_path: Path, seconds: float) -> None:
    home, recipe = tmp_path / "home", _write_recipe(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab", "optimize", str(recipe)],
        env=_environment(home),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if home.exists():
        _trimtab(home, "models", "ls", "--json")
    verdict = json.loads(_trimtab(home, "optimize", str(recipe), "--json").stdout)
    assert verdict["feasible"]
    listed = json.loads(_trimtab(home, "models", "ls", "--json").stdout)
    published = {(row["name"], row["version"]) for row in listed["versions"]}
    assert (verdict["name"], verdict["winner"]["version"]) in published
