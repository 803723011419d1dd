"""The closed table of engines. A name that is not in it loads nothing; each engine is imported when chosen."""

from __future__ import annotations

from pathlib import Path

from trimtab.engines.base import Engine
from trimtab.spec.serving import ServingConfiguration


def load_engine(build: Path, serving: ServingConfiguration) -> Engine:
    """Load what `builds.ensure_build` returned and run it once, so that the first request pays for nothing.

    Raises `EngineError` where the engine cannot load.
    """
    match serving.engine:
        case "openvino":
            from trimtab.engines.openvino.engine import OpenvinoEngine

            return OpenvinoEngine(build, serving)
        case "transformers":
            from trimtab.engines.transformers.engine import TransformersEngine

            return TransformersEngine(build, serving)
        case "mock":
            from trimtab.engines.mock import MockEngine

            return MockEngine(serving)
