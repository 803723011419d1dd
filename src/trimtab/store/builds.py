"""The cache of builds: what engines run, made from artifacts, kept until thrown away. Knows no engine.

A build may always be made again, so it is not signed; a manifest of digests tells a whole one from a damaged
one, and a damaged one counts as missing. Of several processes that want the same build, one makes it and the
rest wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from trimtab.spec.artifact import file_digest, files
from trimtab.store.durable import move, sync_tree, writing_to
from trimtab.store.scratch import locked, scratch, sweep

MANIFEST = "digest.json"
_KEY = re.compile(r"[0-9a-f]{16,64}")


class BuildCache:
    """Builds by key: `spec.ids.digest` of all that decides their bytes (content digest, engine, versions,
    format …).
    """

    def __init__(self, home: Path) -> None:
        self._folder, self._scratch = home / "builds", home / "scratch"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def get(self, key: str) -> Path | None:
        """The folder of a whole build, or None. Costs one SHA-256 pass over it."""
        folder = self._path(key)
        return folder if _is_whole(folder) else None

    def put(self, key: str, fill: Callable[[Path], None]) -> Path:
        """The build; where it is missing or damaged, `fill` is called with an empty folder to make it in.

        If `fill` raises, nothing is kept. While one process fills a key, others that ask for it wait.
        """
        path = self._path(key)
        with writing_to(self._folder), locked(path.with_suffix(".lock")):
            if _is_whole(path):
                return path
            with scratch(self._scratch) as temporary:
                build = temporary / "build"
                build.mkdir()
                fill(build)
                entries = {str(name): file_digest(build / name) for name in files(build)}
                (build / MANIFEST).write_bytes(msgspec.json.encode(entries, order="deterministic"))
                sync_tree(build)
                if path.exists():
                    path.rename(temporary / "damaged")
                move(build, path)
        return path

    def clear(self) -> int:
        """Remove every build that no process is making; returns how many."""
        sweep(self._scratch)
        removed = 0
        ours = [path for path in self._folder.iterdir() if path.is_dir() and _KEY.fullmatch(path.name)]
        for path in ours:
            with locked(path.with_suffix(".lock"), wait=False) as free, scratch(self._scratch) as temporary:
                if free and path.exists():
                    move(path, temporary / "build")
                    removed += 1
        return removed

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a build's key is a digest in hex, not {key!r}")
        return self._folder / key


def _is_whole(folder: Path) -> bool:
    try:
        entries = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return False
    present = {str(name) for name in files(folder)} - {MANIFEST}
    return present == entries.keys() and all(file_digest(folder / name) == entries[name] for name in present)
