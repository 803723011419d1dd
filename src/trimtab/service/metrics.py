"""Counters and histograms in Prometheus' format. Fed once a request, never once a token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from trimtab.service.exchange import Exchange
    from trimtab.service.generation import Generation
    from trimtab.service.model import Model

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SHORT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_LONG = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class _OfModel(NamedTuple):
    prompt: Counter
    output: Counter
    first: Histogram
    whole: Histogram


class Metrics:
    """`render` reads the models' own counts, so that nothing is counted twice."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        options = {"namespace": "trimtab", "registry": self.registry}
        self._answers = Counter(
            "http_answers", "Answers by route and status.", ["route", "status"], **options
        )
        self._prompt = Counter("prompt_tokens", "Prompt tokens served.", ["model"], **options)
        self._output = Counter("output_tokens", "Tokens generated.", ["model"], **options)
        self._first = Histogram(
            "time_to_first_token_seconds",
            "Headers read to first token.",
            ["model"],
            buckets=_SHORT,
            **options,
        )
        self._whole = Histogram(
            "request_seconds", "Headers read to answer.", ["model"], buckets=_LONG, **options
        )
        self._unfinished = Gauge(
            "unfinished_sequences", "Sequences sent and not finished.", ["model"], **options
        )
        self._workers = Gauge("ready_workers", "Workers that are loaded.", ["model"], **options)
        self._restarts = Gauge("worker_restarts", "Workers replaced since the start.", ["model"], **options)
        self._abandoned = Gauge(
            "abandoned_requests", "Requests whose client went away.", ["model"], **options
        )
        self._wasted = Gauge(
            "wasted_tokens", "Tokens generated after their request was cancelled.", ["model"], **options
        )

        # Looking a label up costs more than counting.
        self._answer_children: dict[tuple[str, int], Counter] = {}
        self._model_children: dict[str, _OfModel] = {}

    def note_answer(self, route: str, status: int) -> None:
        child = self._answer_children.get((route, status))
        if child is None:
            child = self._answer_children[route, status] = self._answers.labels(route, str(status))
        child.inc()

    def note_generation(self, name: str, generation: Generation, exchange: Exchange) -> None:
        of = self._model_children.get(name)
        if of is None:
            of = self._model_children[name] = _OfModel(
                self._prompt.labels(name),
                self._output.labels(name),
                self._first.labels(name),
                self._whole.labels(name),
            )
        of.prompt.inc(generation.prompt_tokens)
        of.output.inc(generation.generated_tokens)
        timing = exchange.timing()
        if "first_token" in timing:
            of.first.observe((timing.get("tokenize", 0.0) + timing["first_token"]) / 1e3)
        of.whole.observe(sum(timing.values()) / 1e3)

    def render(self, models: Iterable[Model]) -> bytes:
        for model in models:
            self._unfinished.labels(model.name).set(model.unfinished)
            self._workers.labels(model.name).set(len(model.connections))
            self._restarts.labels(model.name).set(sum(replica.restarts for replica in model.replicas))
            self._abandoned.labels(model.name).set(model.abandoned)
            self._wasted.labels(model.name).set(sum(each.wasted_tokens for each in model.connections))
        return generate_latest(self.registry)
