"""The recipe: what a person asks for. Data only, every key known, every fault told with line and key path."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import pydantic
from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, PlainValidator, model_validator

from trimtab.spec import units
from trimtab.spec.architectures import BertArchitecture, FromScratch
from trimtab.spec.errors import RecipeError, UsageError
from trimtab.spec.ids import NAME
from trimtab.spec.layout import Layout, layout_from, parse_layout
from trimtab.spec.part import Part
from trimtab.spec.recipe_data import Data
from trimtab.spec.recipe_yaml import MAX_BYTES, Document, KeyPath
from trimtab.spec.tasks import TASKS_OF, Task, classifies, data_fault, only_task_of

Duration = Annotated[float, BeforeValidator(units.parse_duration)]
Bytes = Annotated[int, BeforeValidator(units.parse_bytes)]
Fraction = Annotated[float, BeforeValidator(units.parse_fraction), Field(gt=0, le=1)]
Count = Annotated[int, BeforeValidator(units.parse_count)]
Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]


def _layout(value: object) -> Layout | Literal["auto"]:
    """`auto`, a mapping, or text as `--layout` takes it."""
    if value == "auto":
        return "auto"
    try:
        if isinstance(value, Mapping):
            return layout_from(value)
        return parse_layout(str(value))
    except UsageError as error:
        raise ValueError(
            " ".join(part for part in (error.message, error.remedy) if part).rstrip(".")
        ) from error


def _plain_layout(value: Layout | str) -> object:
    return value if isinstance(value, str) else msgspec.to_builtins(value)


Parallel = Annotated[
    Layout | Literal["auto"], PlainValidator(_layout), PlainSerializer(_plain_layout, when_used="always")
]


class Training(Part):
    """How a model is trained, and for how long: `tokens` of text, `samples` or `epochs` of a classifier's data, or a
    `time`, which is turned into one of them by measuring the first steps. `compile` has torch compile every layer,
    which takes a while once; `offload` keeps what `shard` shares in host memory, where a GPU cannot hold it.
    """

    time: Duration | None = None
    tokens: Count | None = None
    samples: Count | None = None
    epochs: int | None = Field(default=None, ge=1, le=1 << 20)
    optimizer: Literal["auto", "adamw", "muon"] = "auto"
    learning_rate: float | Literal["auto"] = "auto"
    sequence_length: int = Field(default=256, ge=8, le=1 << 20)
    batch: int = Field(default=8, ge=1, le=1 << 16)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: bool = False
    offload: bool = False
    seed: int = Field(default=0, ge=0, lt=1 << 31)

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        given = [name for name in ("time", "tokens", "samples", "epochs") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(given)}, not {'both' if len(given) == 2 else 'all'}")
        return self


class QualityGate(Part):
    """What must be kept. The bad end of the 95 % interval decides, against the better of baseline and control."""

    retain: Fraction = 0.95
    metrics: list[Literal["perplexity"]] = Field(default=["perplexity"], min_length=1)


class ServiceLevel(Part):
    """Limits of the served build under `traffic`. Each metric knows its direction.

    `tokens_per_second` counts output tokens; `speedup` is the same ÷ the baseline's, measured side by side.
    """

    ttft_p95: Duration | None = None
    tpot_p95: Duration | None = None
    memory: Bytes | None = None
    tokens_per_second: float | None = Field(default=None, gt=0)
    speedup: float | None = Field(default=None, gt=0)


class Traffic(Part):
    concurrency: int = Field(default=16, ge=1, le=1024)
    prompt_tokens: int = Field(default=64, ge=1)
    output_tokens: int = Field(default=64, ge=1)


class Search(Part):
    """How wide to look. `distill_tokens: 0` is the tier without training: bits and serving configuration only.

    `speedup` is what shapes are chosen for (default: the service level's, else 2); it is an aim, not a limit. The
    engine that candidates are measured on is OpenVINO.
    """

    methods: Literal["auto"] | list[Literal["depth", "width", "kv_groups", "int8", "int4"]] = "auto"
    engines: Literal["auto"] | list[Literal["openvino"]] = "auto"
    distill_tokens: Count | Literal["auto"] = Field(default="auto", union_mode="left_to_right")
    finalists: int = Field(default=1, ge=1, le=16)
    speedup: float | None = Field(default=None, gt=1, le=100)
    from_scratch: bool = False


class Budget(Part):
    time: Duration = 7200.0


class Recipe(Part):
    """A whole recipe. `Recipe.load` reads a file; relative paths in it are relative to that file."""

    version: Literal[1]
    name: Name
    task: Task | None = None
    model: str | FromScratch
    data: Data
    training: Training = Training()
    quality: QualityGate = QualityGate()
    slo: ServiceLevel = ServiceLevel()
    objective: Literal["throughput", "latency", "memory"] = "throughput"
    traffic: Traffic = Traffic()
    search: Search = Search()
    budget: Budget = Budget()
    parallel: Parallel = "auto"

    @model_validator(mode="after")
    def _whole(self) -> Recipe:
        if isinstance(self.model, str):
            fault = self.task and self._fault(self.task)
        elif not (self.data.train or self.data.stdlib):
            fault = "a model trained from scratch needs data.train or data.stdlib"
        else:
            fault = self._fault(self._task(None))
        if fault:
            raise ValueError(fault)
        return self

    def for_model(self, model_task: Task | None) -> Recipe:
        """The same recipe with its task settled: the one named, else what data or architecture is for, else that of the
        model in a folder. Raises `RecipeError` where the rest of the recipe does not go with it.
        """
        task = self._task(model_task)
        if fault := self._fault(task):
            raise RecipeError(f"{fault}.", where="recipe task")
        return self.model_copy(update={"task": task})

    def _task(self, model_task: Task | None) -> Task:
        own = None if isinstance(self.model, str) else TASKS_OF[self.model.architecture][0]
        return self.task or only_task_of(self.data.kind) or own or model_task or "text-generation"

    def _fault(self, task: Task) -> str | None:
        """What of the recipe does not go with the task, or None."""
        if not isinstance(self.model, str) and task not in (able := TASKS_OF[self.model.architecture]):
            return f"a {self.model.architecture} is for {' or '.join(able)}, not for {task}"
        length = self.training.sequence_length
        if isinstance(self.model, BertArchitecture) and length > self.model.context:
            return (
                f"training.sequence_length ({length}) is beyond the model's context ({self.model.context}); use a "
                "shorter sequence or a longer context"
            )
        if classifies(task) and self.training.tokens:
            return "a classifier counts training.samples or training.epochs, not tokens"
        if not classifies(task) and (self.training.samples or self.training.epochs):
            return f"{task} counts training.tokens, not samples or epochs"
        if task == "image-classification" and self.training.batch < 2:
            return "batch norms need a training.batch of 2 or more"
        return data_fault(task, self.data.kind)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Raises `RecipeError` naming line, key path and the nearest valid key."""
        path = Path(path)
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_BYTES + 1)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise RecipeError(f"the recipe cannot be read: {reason}.", where=str(path)) from error
        return cls.parse(text, name=str(path), folder=path.parent)

    @classmethod
    def parse(cls, text: str, *, name: str = "recipe", folder: Path | None = None) -> Recipe:
        document = Document(text, name)
        try:
            recipe = cls.model_validate(document.values)
        except pydantic.ValidationError as error:
            raise _explain(error, document) from error
        return recipe if folder is None else recipe.rooted(folder)

    def rooted(self, folder: Path) -> Recipe:
        """The same recipe with every relative path made absolute from `folder`."""
        model = self.model
        if isinstance(model, str) and model.startswith(("./", "../")):
            model = str((folder / model).resolve())
        return self.model_copy(update={"data": self.data.rooted(folder), "model": model})

    def digest(self) -> str:
        """SHA-256 of the recipe's meaning: comments, order and units do not count."""
        plain = self.model_dump(mode="json")
        return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _explain(error: pydantic.ValidationError, document: Document) -> RecipeError:
    """The first fault as a sentence with its place and, for an unknown key, the nearest valid one."""
    # Of the arms of a union, the one that got furthest is the one that was meant.
    faults = sorted(
        error.errors(),
        key=lambda f: (
            f["type"] != "extra_forbidden",
            -len(f["loc"]),
            not f["type"].startswith(("value_error", "union_tag")),
        ),
    )
    fault = faults[0]
    path = _written(fault["loc"], document.values)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(path[:-1], fault["loc"])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}."
        return RecipeError(f"unknown key {str(path[-1])!r}.", where=document.place(path), remedy=remedy)
    if fault["type"] in ("missing", "union_tag_not_found"):
        missing = "architecture" if fault["type"] != "missing" else str(fault["loc"][-1])
        return RecipeError(f"the key {missing!r} is missing.", where=document.place(path))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch":
        message = f"{fault['input']!r} is not a name; use up to 64 of a-z, 0-9, '.', '_' and '-'"
    if fault["type"].startswith(("int", "float", "bool")) and isinstance(fault.get("input"), str):
        message = f"{fault['input']!r} is read as text, not as a number; write it without quotes, as digits"
    return RecipeError(f"{message}.", where=document.place(path))


def _written(location: tuple[int | str, ...], values: object) -> KeyPath:
    """Drops what pydantic adds to a path for the arms of a union, so that the path is the one written."""
    path: list[int | str] = []
    for part in location:
        if isinstance(values, dict):
            if part not in values:
                continue
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int):
            values = values[part]
        else:
            continue
        path.append(part)
    return tuple(path)


def _keys_at(path: KeyPath, location: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand in the mapping at `path`; of the arms of a union, those of the one in `location`."""
    part: type[BaseModel] = Recipe
    for key in path:
        if isinstance(key, str) and key in part.model_fields:
            models = _models(part.model_fields[key].annotation)
            if models:
                part = next((model for model in models if _tag(model) in location), models[0])
    return list(part.model_fields)


def _tag(model: type[BaseModel]) -> str | None:
    """What sets an architecture apart from the others."""
    field = model.model_fields.get("architecture")
    return get_args(field.annotation)[0] if field else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arm in get_args(annotation) for model in _models(arm)]
