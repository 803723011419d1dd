"""What the gateway process is told: models, address, cores. Holds no secret; it travels as a JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from trimtab.service import limits
from trimtab.spec.serving import ServingConfiguration


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model to serve under `name`. `artifact` is a folder, or None for the mock engine."""

    name: str
    artifact: Path | None = None
    serving: ServingConfiguration = ServingConfiguration()


class GatewayConfiguration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`runtime` is a private folder for sockets, removed at the end. Empty `cores` = not pinned."""

    models: tuple[ServedModel, ...]
    home: Path
    runtime: Path
    cores: tuple[int, ...] = ()
    cors_origins: tuple[str, ...] = ()
    dead_seconds: float = limits.DEAD_SECONDS
    drain_seconds: float = limits.DRAIN_SECONDS


def _encode(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError


def _decode(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else value


def save(configuration: GatewayConfiguration, path: Path) -> None:
    path.write_bytes(msgspec.json.encode(configuration, enc_hook=_encode))


def load(path: Path) -> GatewayConfiguration:
    return msgspec.json.decode(path.read_bytes(), type=GatewayConfiguration, dec_hook=_decode)
