import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from trimtab.optimization.workspace import OPTIMIZER, Workspace, run_folder
from trimtab.spec.errors import IntegrityError, RefusedError, TrimtabError
from trimtab.spec.hardware import this_machine
from trimtab.spec.recipe import Recipe

RECIPE = """
version: 1
name: it
model: some-model
data: {test: {text: t.txt}}
"""
HOLDER = """
import sys, time
from pathlib import Path
from trimtab.optimization.workspace import Workspace
from trimtab.spec.recipe import Recipe
with Workspace(Recipe.parse(sys.argv[2]), Path(sys.argv[1]), Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_step_is_made_once(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, int]:
        made.append(1)
        return {"a": 1}

    recipe = Recipe.parse(RECIPE)
    for _ in range(2):
        with Workspace(recipe, None, tmp_path) as workspace:
            assert workspace.step("it", dict[str, int], make) == {"a": 1}
    assert len(made) == 1


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> int:
        raise ValueError

    with Workspace(Recipe.parse(RECIPE), None, tmp_path) as workspace:
        with pytest.raises(ValueError):  # noqa: PT011 - our own
            workspace.step("it", int, fail)
        assert workspace.step("it", int, lambda: 7) == 7


def test_another_recipe_is_another_run_and_comments_do_not_count(tmp_path: Path) -> None:
    same = run_folder(Recipe.parse(RECIPE), tmp_path)
    assert run_folder(Recipe.parse("# a comment\n" + RECIPE), tmp_path) == same
    assert run_folder(Recipe.parse(RECIPE + "objective: memory\n"), tmp_path) != same


def test_a_folder_of_another_run_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with Workspace(Recipe.parse(RECIPE), tmp_path / "run", tmp_path) as workspace:
        workspace.step("it", int, lambda: 1)
    with pytest.raises(RefusedError, match="another recipe"):
        Workspace(Recipe.parse(RECIPE + "objective: memory\n"), tmp_path / "run", tmp_path)
    with Workspace(Recipe.parse(RECIPE), tmp_path / "run", tmp_path) as workspace:
        assert workspace.step("it", int, lambda: 2) == 1


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), RECIPE]
    holder = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(RefusedError, match="another process"):
            Workspace(Recipe.parse(RECIPE), tmp_path / "run", tmp_path)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with Workspace(Recipe.parse(RECIPE), tmp_path / "run", tmp_path):
        pass


def test_training_may_go_on_on_another_machine_and_figures_of_speed_may_not(tmp_path, monkeypatch):
    recipe, folder = Recipe.parse(RECIPE), tmp_path / "run"

    def move(**changes):
        moved = msgspec.structs.replace(this_machine(), **changes)
        monkeypatch.setattr("trimtab.optimization.workspace.this_machine", lambda: moved)

    with Workspace(recipe, folder, tmp_path):
        pass
    # Other cores of the same kind are the same machine.
    move(cores=tuple(core + 7 for core in this_machine().cores), memory_bytes=1)
    with Workspace(recipe, folder, tmp_path):
        pass
    move(processor="another")
    with pytest.raises(RefusedError):
        Workspace(recipe, folder, tmp_path)
    for processor in ("one", "another"):
        move(processor=processor)
        with Workspace(recipe, tmp_path / "anywhere", tmp_path, anywhere=True):
            pass


def test_what_was_trained_anywhere_is_optimized_where_it_is(tmp_path: Path) -> None:
    recipe, folder = Recipe.parse(RECIPE), tmp_path / "run"
    with Workspace(recipe, folder, tmp_path, anywhere=True) as workspace:
        workspace.step("it", int, lambda: 1)
    with Workspace(recipe, folder, tmp_path) as workspace:
        assert workspace.step("it", int, lambda: 2) == 1


def test_the_time_of_earlier_starts_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("trimtab.optimization.workspace.time.monotonic", lambda: clock[0])
    recipe = Recipe.parse(RECIPE)

    def work() -> int:
        clock[0] += 50
        return 1

    for start, begun in enumerate((0, 50)):
        clock[0] = 1000.0 * start
        with Workspace(recipe, None, tmp_path) as workspace:
            assert workspace.seconds == begun
            workspace.step(f"step-{start}", int, work)
            clock[0] += 7  # work that was cut off is done again, so it is not counted
            assert workspace.seconds == begun + 57


def _go_on(recipe: Recipe, home: Path) -> None:
    with Workspace(recipe, None, home) as workspace:
        assert workspace.verdict is None
        workspace.step("it", dict[str, int], lambda: {"a": 2})


@pytest.mark.parametrize("damage", [b"", b"{", b'"text"', b"\xff\xfe", b'{"a": "b"}'])
def test_a_damaged_result_is_a_sentence_with_its_file(tmp_path: Path, damage: bytes) -> None:
    recipe = Recipe.parse(RECIPE)
    with Workspace(recipe, None, tmp_path) as workspace:
        workspace.step("it", dict[str, int], lambda: {"a": 1})
        folder = workspace.folder
    for path in (folder / "results" / "it.json", folder / "verdict.json", folder / "spent.json"):
        kept = path.read_bytes() if path.exists() else None
        path.write_bytes(damage)
        with pytest.raises(IntegrityError) as told:
            _go_on(recipe, tmp_path)
        assert told.value.where == str(path)
        assert "Delete this file" in str(told.value)
        path.unlink() if kept is None else path.write_bytes(kept)


def test_opening_again_writes_nothing(tmp_path: Path) -> None:
    recipe = Recipe.parse(RECIPE)
    with Workspace(recipe, None, tmp_path) as workspace:
        folder = workspace.folder
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    with Workspace(recipe, None, tmp_path):
        pass
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_full_disk_is_a_sentence_and_what_is_done_stays_done(tmp_path: Path, number: int) -> None:
    """Of whatever step, verdict and report among them."""
    recipe = Recipe.parse(RECIPE)

    def full() -> int:
        raise OSError(number, os.strerror(number), str(tmp_path / "report.html"))

    def run() -> None:
        with Workspace(recipe, None, tmp_path) as workspace:
            workspace.step("first", int, lambda: 7)
            workspace.step("second", int, full)

    with pytest.raises(TrimtabError, match=re.escape(os.strerror(number))) as caught:
        run()
    assert caught.value.where == str(tmp_path / "report.html")
    assert "it goes on from there" in str(caught.value.remedy)
    with Workspace(recipe, None, tmp_path) as workspace:
        assert workspace.step("first", int, full) == 7
        assert workspace.step("second", int, lambda: 8) == 8


def test_other_faults_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Workspace(Recipe.parse(RECIPE), None, tmp_path):
        raise KeyError


def test_a_folder_that_cannot_be_written_to_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrimtabError, match="Not a directory") as caught:
        Workspace(Recipe.parse(RECIPE), tmp_path / "file" / "run", tmp_path)
    assert "--output" in str(caught.value.remedy)


def test_a_full_disk_while_a_run_is_opened_does_not_make_it_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names that tell whose a folder is are whole or not there."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("trimtab.store.durable.os.fsync", full)
        with pytest.raises(TrimtabError, match="No space left"):
            Workspace(Recipe.parse(RECIPE), tmp_path / "run", tmp_path)
    with Workspace(Recipe.parse(RECIPE), tmp_path / "run", tmp_path):
        pass


LONGER = RECIPE + "objective: memory\n"


def test_another_recipe_takes_a_run_over_only_if_changes_are_accepted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with Workspace(Recipe.parse(RECIPE), run, tmp_path) as workspace:
        workspace.step("trained", int, lambda: 1)
        workspace.step(OPTIMIZER, str, lambda: "muon")
        (workspace.folder / "checkpoints" / "trained" / "step-3").mkdir(parents=True)
    with pytest.raises(RefusedError, match="another recipe") as caught:
        Workspace(Recipe.parse(LONGER), run, tmp_path)
    assert "--accept-changes" in str(caught.value.remedy)
    with Workspace(Recipe.parse(LONGER), run, tmp_path, accept_changes=True) as workspace:
        assert workspace.step("trained", int, lambda: 2) == 2
        # Its state is in the checkpoints.
        assert workspace.step(OPTIMIZER, str, lambda: "adamw") == "muon"
        assert (run / "checkpoints" / "trained" / "step-3").is_dir()
    with Workspace(Recipe.parse(LONGER), run, tmp_path) as workspace:
        assert workspace.step("trained", int, lambda: 3) == 2


def test_starting_over_leaves_what_is_not_ours(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ours = ("checkpoints/trained/step-3", "checkpoints/trained/.step-4.part", "models/trained")
    foreign = (
        "checkpoints/trained/step-3-backup",
        "checkpoints/mine",
        "models/trained-before",
        "models/.git",
    )
    with Workspace(Recipe.parse(RECIPE), run, tmp_path) as workspace:
        workspace.step("trained", int, lambda: 1)
        for name in (*ours, *foreign):
            (run / name).mkdir(parents=True)
        for name in ("results/.DS_Store", "results/notes.md~", ".DS_Store"):
            (run / name).touch()
        workspace.start_over()
        assert workspace.step("trained", int, lambda: 2) == 2
        assert [name for name in ours if (run / name).exists()] == []
        assert [name for name in foreign if not (run / name).exists()] == []
        assert (run / "results" / ".DS_Store").exists()
        assert (run / "results" / "notes.md~").exists()
