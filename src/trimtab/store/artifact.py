"""An artifact in hand: a checked, published version and its folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.spec.artifact import PASSPORT, SERVING, Passport
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.store import Store


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is a Hugging Face folder; treat it as read-only. `name` and `version` are its place in the store."""

    name: str
    version: int
    path: Path

    @property
    def serving(self) -> ServingConfiguration:
        """The configuration that was proven; the defaults where none was."""
        path = self.path / SERVING
        if not path.exists():
            return ServingConfiguration()
        return msgspec.json.decode(path.read_bytes(), type=ServingConfiguration)

    @property
    def passport(self) -> Passport:
        return msgspec.json.decode((self.path / PASSPORT).read_bytes(), type=Passport)


def load(reference: str, *, home: Path | None = None) -> Artifact:
    """A version by `name`, `name@3` or `name:prod`, its signature and every file checked.

    Raises `NotFoundError`, or `IntegrityError` naming the file that changed.
    """
    store = Store(home)
    version = store.resolve(reference)
    with store.open(version.reference) as folder:
        return Artifact(name=version.name, version=version.version, path=folder)
