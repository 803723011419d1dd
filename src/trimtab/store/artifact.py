"""An artifact in hand: a checked, published version and its folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trimtab.spec.artifact import PASSPORT, SERVING, Passport
from trimtab.spec.errors import ModelError
from trimtab.spec.hardware import usable_cores
from trimtab.spec.json_file import read_bounded
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.intake import examine
from trimtab.store.store import Store
from trimtab.store.tensor_names import stored_dtype


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is a Hugging Face folder; treat it as read-only. `name` and `version` are its place in the store."""

    name: str
    version: int
    path: Path

    @property
    def serving(self) -> ServingConfiguration:
        """The configuration that was proven; where none was, `as_stored`."""
        return proven(self.path) or as_stored(self.path)

    @property
    def passport(self) -> Passport:
        return msgspec.json.decode((self.path / PASSPORT).read_bytes(), type=Passport)


def proven(folder: Path) -> ServingConfiguration | None:
    """What `optimize` wrote into an artifact. Raises `ModelError` for a file that says something else."""
    path = folder / SERVING
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(read_bounded(path), type=ServingConfiguration)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ModelError(f"Not a serving configuration: {error}.", where=str(path)) from error


def as_stored(folder: Path) -> ServingConfiguration:
    """Served as its files have it, on all cores: no bits are dropped before somebody has measured what that costs."""
    stored = stored_dtype(examine(folder).tensors)
    return ServingConfiguration(
        weight_format="bf16" if stored == "bfloat16" else "float32",
        kv_precision="float32",
        threads=len(usable_cores()),
    )


def load(reference: str, *, home: Path | None = None) -> Artifact:
    """A version by `name`, `name@3` or `name:prod`, its signature and every file checked.

    Raises `NotFoundError`, or `IntegrityError` naming the file that changed.
    """
    store = Store(home)
    version = store.resolve(reference)
    with store.open(version.reference) as folder:
        return Artifact(name=version.name, version=version.version, path=folder)
