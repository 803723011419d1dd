"""What a handler may use: the models, the keys, the metrics. Made once, passed to every route."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from trimtab.security.identity import Principal
from trimtab.service.errors import ModelNotFoundError
from trimtab.service.metrics import Metrics
from trimtab.service.model import Model


class Keys(Protocol):
    @property
    def stale_seconds(self) -> float | None:
        """How old what is known of the keys is, while they cannot be read; else None."""
        ...

    async def verify(self, presented: str) -> Principal:
        """Raises `AuthenticationError`, and `UnavailableError` where it cannot be known."""
        ...


class Backend:
    """`draining` is set when the service is about to end: it is no longer ready, but still answers."""

    def __init__(self, models: Mapping[str, Model], keys: Keys) -> None:
        self.models, self.keys = models, keys
        self.metrics = Metrics()
        self.openapi = b"{}"
        self.draining = False

    @property
    def ready(self) -> bool:
        return not self.draining and all(model.ready for model in self.models.values())

    def model(self, name: str) -> Model:
        """Raises `ModelNotFoundError`."""
        found = self.models.get(name)
        if found is None:
            raise ModelNotFoundError(
                f"The model {name!r} is not served here.",
                where="model",
                remedy="GET /v1/models lists those that are.",
            )
        return found
