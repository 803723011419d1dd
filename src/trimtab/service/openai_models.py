"""GET /v1/models and /v1/models/{model}."""

from __future__ import annotations

import msgspec

from trimtab.service.backend import Backend
from trimtab.service.exchange import Exchange
from trimtab.service.model import Model


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's record, and vLLM's `max_model_len`: the context in tokens, None while the model loads."""

    id: str
    created: int
    owned_by: str = "trimtab"
    object: str = "model"
    max_model_len: int | None = None


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    data: list[ModelCard]
    object: str = "list"


def _card(model: Model) -> ModelCard:
    context = model.capabilities.context_length if model.capabilities else None
    return ModelCard(id=model.name, created=model.created, max_model_len=context)


async def list_models(exchange: Exchange, backend: Backend) -> None:
    cards = [_card(model) for model in backend.models.values()]
    await exchange.respond(200, msgspec.json.encode(ModelList(data=cards)))


async def get_model(exchange: Exchange, backend: Backend) -> None:
    await exchange.respond(200, msgspec.json.encode(_card(backend.model(exchange.path_parameters["model"]))))
