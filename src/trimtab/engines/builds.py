"""The builds that serving configurations run, from the cache or made now. Torch-free.

A build's key covers everything that decides its bytes, so an upgraded package makes a new one by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.engines.builder import Builder
from trimtab.engines.record import RECORD, versions
from trimtab.engines.refusals import torch_dtype
from trimtab.models.info import inspect
from trimtab.spec.artifact import content_digest
from trimtab.spec.ids import digest
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.builds import BuildCache


def ensure_build(artifact: Path, serving: ServingConfiguration, home: Path) -> Path:
    """The folder that `serving.engine` loads; for engines that need no build, the artifact itself.

    Raises `ModelError` for an artifact that the engine cannot serve, `EngineError` where the build fails.
    """
    return ensure_builds([(artifact, serving)], home)[0]


def ensure_builds(wanted: Sequence[tuple[Path, ServingConfiguration]], home: Path) -> list[Path]:
    """`ensure_build` for several, in order. All that are missing are made by one process, which starts once."""
    with Builder() as builder:
        return [_ensure(artifact, serving, home, builder) for artifact, serving in wanted]


def _ensure(artifact: Path, serving: ServingConfiguration, home: Path, builder: Builder) -> Path:
    if serving.engine == "mock":
        return artifact
    # What can be refused without torch is refused at once.
    if serving.engine == "transformers":
        torch_dtype(serving.weight_format)
    inspect(artifact)
    if serving.engine == "transformers":
        return artifact
    key = digest(build_key(artifact, serving))
    return BuildCache(home).put(key, lambda folder: builder.make(artifact, serving.weight_format, folder))


def build_key(artifact: Path, serving: ServingConfiguration) -> dict[str, object]:
    """What decides the bytes of a data-free build."""
    return {
        "content": content_digest(artifact),
        "engine": serving.engine,
        "versions": versions(serving.engine),
        "weight_format": serving.weight_format,
        "calibration": None,
    }


def weights_bytes(build: Path) -> int:
    """Bytes of weights on disk in what an engine loads: a build, or an artifact for engines without builds."""
    if (build / RECORD).is_file():
        return sum(path.stat().st_size for path in build.iterdir() if path.suffix == ".bin")
    return inspect(build).weights_bytes
