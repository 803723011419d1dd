"""Bad input to `optimize`: a sentence that names the place, the right exit code, nothing written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

GOOD = "version: 1\nname: it\nmodel: ./model\ndata: {test: {text: t.txt}}\n"


def _run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trimtab", "optimize", *arguments],
        check=False,
        env={**os.environ, "TRIMTAB_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (GOOD + "qualty: {}\n", "recipe.yaml:5 qualty: unknown key 'qualty'. Did you mean 'quality'?"),
        (GOOD + "name: again\n", "the key 'name' is written twice"),
        (GOOD + "slo: {memory: 2Gib}\n", "recipe.yaml:5 slo.memory: '2Gib' is not a size"),
        (GOOD, "model"),
    ],
)
def test_a_bad_recipe(tmp_path: Path, recipe: str, says: str) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    done = _run(tmp_path / "home", str(tmp_path / "recipe.yaml"))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "home").glob("runs/*"))


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    done = _run(tmp_path / "home", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_a_folder_without_data_flag(tmp_path: Path) -> None:
    done = _run(tmp_path / "home", str(tmp_path))
    assert done.returncode == 2
    assert "--data" in done.stderr


def test_a_folder_without_config(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "t.txt").write_text("text\n" * 100, encoding="utf-8")
    done = _run(tmp_path / "home", str(tmp_path / "model"), "--data", f"text:{tmp_path / 't.txt'}")
    assert done.returncode == 2
    assert "config.json" in done.stderr
