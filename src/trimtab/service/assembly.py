"""From a served model's record to a running one: tokenizer, template, and a place for each replica."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.service.configuration import GatewayConfiguration, ServedModel
from trimtab.service.encoding import Encoding
from trimtab.service.model import Model
from trimtab.service.rendering import Rendering
from trimtab.service.replica import Place, Replica
from trimtab.service.worker_process import Spawn, spawn_worker
from trimtab.spec.errors import UsageError
from trimtab.text.rows import check_rows
from trimtab.text.templates import ChatTemplate
from trimtab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

# The mock engine has no model that could bring a template.
MOCK_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def make_model(
    served: ServedModel,
    settings: GatewayConfiguration,
    cores: tuple[int, ...],
    log: FilteringBoundLogger,
    *,
    spawn: Spawn = spawn_worker,
) -> Model:
    """`cores` are those of the machine that this service may use. Nothing is started yet."""
    if served.artifact is None and served.serving.engine != "mock":
        raise UsageError(f"The engine {served.serving.engine!r} needs a model's folder.", where=served.name)
    replicas = [
        Replica(served, _place(served, index, settings, cores), log, spawn=spawn)
        for index in range(served.serving.replicas)
    ]
    if served.artifact is None:
        tokenizer, template = Tokenizer.of_bytes(), ChatTemplate(MOCK_TEMPLATE, {})
    else:
        has_tokenizer = (served.artifact / "tokenizer.json").is_file()
        if not has_tokenizer:
            log.warning("no tokenizer.json: only token ids are served", model=served.name)
        tokenizer = Tokenizer.load(served.artifact) if has_tokenizer else None
        template = ChatTemplate.load(served.artifact) if has_tokenizer else None
    encoding = None
    if tokenizer is not None:
        source = template.source if template is not None else ""
        if served.artifact is not None:
            for line in check_rows(tokenizer, source, served.artifact):
                log.warning(line, model=served.name)
        encoding = Encoding(served.name, tokenizer, source, trust_markup=settings.trust_markup)
    rendering = Rendering(template) if template else None
    return Model(
        served.name, served.serving, replicas, tokenizer=tokenizer, template=rendering, encoding=encoding
    )


def _place(served: ServedModel, index: int, settings: GatewayConfiguration, cores: tuple[int, ...]) -> Place:
    """Replica i is pinned to `serving.cores[i % n]`. A gateway that is pinned itself does not pass it on."""
    planned = served.serving.cores
    pinned = planned[index % len(planned)] if planned else (cores if settings.cores else ())
    number = settings.models.index(served)
    return Place(
        home=settings.home,
        runtime=settings.runtime,
        label=f"worker-{number}-{index}",
        cores=pinned,
        dead_seconds=settings.dead_seconds,
    )
