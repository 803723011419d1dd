"""`build.json`: what a build is, written beside it, so that a worker knows its model without torch or its config."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import msgspec

from trimtab.models.info import ModelInfo
from trimtab.spec.errors import EngineError
from trimtab.spec.serving import EngineName, WeightFormat

RECORD = "build.json"
# Counts up whenever the same artifact would be exported differently; part of every build's key.
EXPORTER = 1
_PACKAGES: dict[str, tuple[str, ...]] = {
    "openvino": ("openvino", "nncf", "torch", "transformers"),
    "transformers": ("torch", "transformers"),
    "mock": (),
}


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model` is the artifact's own description; `versions` the exporter and packages that made the build."""

    engine: EngineName
    weight_format: WeightFormat
    content_digest: str
    model: ModelInfo
    versions: dict[str, str]


def versions(engine: EngineName) -> dict[str, str]:
    """Versions of what decides a build's bytes. Raises `EngineError` if a package is not installed."""
    found = {"exporter": str(EXPORTER)}
    for package in _PACKAGES[engine]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            extra = "openvino" if package in ("openvino", "nncf") else "torch"
            raise EngineError(
                f"the {engine} engine needs the package {package}, which is not installed.",
                remedy=f"Run: pip install 'trimtab[{extra}]'.",
            ) from error
    return found


def write_record(record: BuildRecord, folder: Path) -> None:
    encoded = msgspec.json.encode(record, order="deterministic")
    (folder / RECORD).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")


def read_record(folder: Path) -> BuildRecord:
    """Raises `EngineError` for a folder that is not a build of ours."""
    try:
        return msgspec.json.decode((folder / RECORD).read_bytes(), type=BuildRecord)
    except (OSError, msgspec.MsgspecError) as error:
        raise EngineError(
            f"the build has no readable {RECORD}.",
            where=str(folder),
            remedy="Delete the folder; it is made again.",
        ) from error
