"""A run's folder: what was asked, what each step gave, and a lock. The same recipe finds it and goes on.

A step's result is written whole or not at all, after its folders; so after `kill -9` a step was either done or
never happened. Another Trimtab version, other hardware or another recipe is another folder.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from trimtab.spec import checkpoints
from trimtab.spec.errors import IntegrityError, RefusedError
from trimtab.spec.hardware import this_machine
from trimtab.spec.ids import digest
from trimtab.spec.recipe import Recipe
from trimtab.spec.verdict import Verdict
from trimtab.spec.version import __version__
from trimtab.store.durable import check_writable, refusal, refused, replace_bytes, writing_to

Result = TypeVar("Result")
# The step that chose it, once a run.
OPTIMIZER = "optimizer"


def run_folder(recipe: Recipe, home: Path) -> Path:
    """`$TRIMTAB_HOME/runs/NAME-DIGEST` of this recipe, this version and this machine."""
    identity = digest((recipe.digest(), __version__, this_machine().kind))
    return home / "runs" / f"{recipe.name}-{identity[:12]}"


class Workspace:
    """The folder of one run, locked against a second process."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path | None,
        home: Path,
        *,
        anywhere: bool = False,
        accept_changes: bool = False,
    ) -> None:
        """`anywhere`: the run may go on on another kind of machine, which figures of speed may not. `accept_changes`:
        another recipe takes the folder over, with its checkpoints and without its results.

        Raises `RefusedError` while another process works on the same run, or where `folder` holds another run.
        """
        self.folder = (folder or run_folder(recipe, home)).resolve()
        with writing_to(self.folder, remedy="or give an --output elsewhere."):
            self._open(recipe, anywhere=anywhere, accept_changes=accept_changes)

    def _open(self, recipe: Recipe, *, anywhere: bool, accept_changes: bool) -> None:
        (self.folder / "results").mkdir(parents=True, exist_ok=True)
        check_writable(self.folder)
        self._lock = (self.folder / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise RefusedError(
                "another process is working on this run.",
                where=str(self.folder),
                remedy="Wait for it, or stop it.",
            ) from error
        try:
            self._take_over(recipe, anywhere=anywhere, accept_changes=accept_changes)
        except BaseException:
            self._lock.close()
            raise

    def _take_over(self, recipe: Recipe, *, anywhere: bool, accept_changes: bool) -> None:
        # Another recipe's steps must never pass for this one's, nor another machine's figures of speed.
        claims = {"identity": digest((recipe.digest(), __version__))}
        if not anywhere:
            claims["machine"] = digest(this_machine().kind)
        self._claim(claims, accept_changes=accept_changes)
        self._write_once("recipe.json", recipe.model_dump_json(indent=2))
        # Of earlier starts, up to the last step that each finished: the budget does not begin anew on resuming.
        spent = self.folder / "spent.json"
        self._spent = self._read("spent", spent, float) if spent.exists() else 0.0
        self._opened = time.monotonic()

    def _claim(self, claims: Mapping[str, str], *, accept_changes: bool) -> None:
        for name, claim in claims.items():
            path = self.folder / name
            if path.exists() and path.read_text(encoding="utf-8") != claim:
                if accept_changes:
                    self._forget_results()
                    for stale in (path, self.folder / "recipe.json"):
                        stale.unlink(missing_ok=True)
                    continue
                raise RefusedError(
                    "this folder holds a run of another recipe, version or machine.",
                    where=str(self.folder),
                    remedy="Give an --output of its own, or none; `train` goes on from it with --accept-changes.",
                )
        for name, claim in claims.items():
            self._write_once(name, claim)

    def _write_once(self, name: str, text: str) -> None:
        if not (self.folder / name).exists():
            replace_bytes(self.folder / name, text.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A full disk, or a right that is missing, is told in a sentence: what is done by then stays done."""
        self._lock.close()
        if error is not None and (no_room := refusal(error)) is not None:
            again = "then do it again: it goes on from there."
            raise refused(no_room, self.folder, remedy=again) from error

    @property
    def seconds(self) -> float:
        """How long the run has worked, over all its starts."""
        return self._spent + time.monotonic() - self._opened

    @property
    def verdict(self) -> Verdict | None:
        """What the run came to, if it has ended."""
        path = self.folder / "verdict.json"
        return self._read("verdict", path, Verdict) if path.exists() else None

    def conclude(self, verdict: Verdict) -> None:
        """Write the verdict, which ends the run, and free what only a resumption would need."""
        verdict.save(self.folder / "verdict.json")
        self._forget_checkpoints()
        shutil.rmtree(self.folder / "publish", ignore_errors=True)

    def start_over(self) -> None:
        """Forget what was trained and all that was made of it; prepared data stays, and so does what is not ours."""
        self._forget_results()
        (self.folder / "results" / f"{OPTIMIZER}.json").unlink(missing_ok=True)
        for name in {"trained", "baseline", *self._forget_checkpoints()}:
            shutil.rmtree(self.folder / "models" / name, ignore_errors=True)

    def _forget_results(self) -> None:
        """What steps gave, but for the optimizer whose state the checkpoints hold."""
        for path in (self.folder / "results").iterdir():
            if path.suffix in (".json", ".part") and path.stem != OPTIMIZER:
                path.unlink()
        (self.folder / "verdict.json").unlink(missing_ok=True)

    def _forget_checkpoints(self) -> list[str]:
        """Returns the names of the models that they were of."""
        root = self.folder / "checkpoints"
        found = [path for path in root.iterdir() if checkpoints.steps(path)] if root.is_dir() else []
        for path in found:
            checkpoints.remove_all(path)
        return [path.name for path in found]

    def step(self, name: str, kind: type[Result], make: Callable[[], Result]) -> Result:
        """The result of a step: read if it was done before, made and kept otherwise."""
        path = self.folder / "results" / f"{name}.json"
        if path.exists():
            return self._read(name, path, kind)
        result = make()
        replace_bytes(path, msgspec.json.format(msgspec.json.encode(result), indent=2))
        replace_bytes(self.folder / "spent.json", msgspec.json.encode(round(self.seconds, 3)))
        return result

    def _read(self, name: str, path: Path, kind: type[Result]) -> Result:
        """Raises `IntegrityError` for a result that was changed or damaged."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._lock.close()
            raise IntegrityError(
                f"the result of the step {name!r} cannot be read: {error}.",
                where=str(path),
                remedy="Delete this file to have the step done again, or the whole folder to begin anew.",
            ) from error
