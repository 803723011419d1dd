"""`trimtab.serve(artifact)`: a service from Python, as its proven configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.service.launch import ServedModel, Service, start
from trimtab.store.artifact import Artifact
from trimtab.store.home import home as default_home


def serve(
    *artifacts: Artifact,
    port: int = 8000,
    host: str = "127.0.0.1",
    home: Path | None = None,
    cors_origins: Sequence[str] = (),
) -> Service:
    """Start a service and wait until it is ready; use it as a context manager. Port 0 takes a free one.
    `cors_origins` are the web origins whose pages may call it from a browser.

    Workers start by exec, so this works in notebooks. Raises `UsageError` for a port in use, `EngineError` for a
    model that cannot be loaded.
    """
    models = [ServedModel(name=a.name, artifact=a.path, serving=a.serving) for a in artifacts]
    return start(models, home=home or default_home(), host=host, port=port, cors_origins=cors_origins)
