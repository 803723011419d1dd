"""The recipe: what a person asks for. Data only, every key known, every fault told with line and key path."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import pydantic
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from trimtab.spec import units
from trimtab.spec.errors import RecipeError, UsageError
from trimtab.spec.ids import NAME
from trimtab.spec.layout import Layout, layout_from, parse_layout
from trimtab.spec.recipe_yaml import Document, KeyPath

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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Part):
    """Where text comes from: exactly one of `text`, `jsonl` (with `text` or `messages` naming a field), `stdlib`.

    For `{jsonl: F, text: FIELD}` the key `text` names the field; for `{text: FILE}` it names the file.
    """

    text: str | None = None
    jsonl: str | None = None
    messages: str | None = None
    stdlib: Literal["python"] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        if self.stdlib and (self.text or self.jsonl or self.messages):
            raise ValueError("stdlib stands alone")
        if self.jsonl and bool(self.text) == bool(self.messages):
            raise ValueError("jsonl needs one of text: FIELD or messages: FIELD")
        if self.messages and not self.jsonl:
            raise ValueError("messages names a field of a jsonl file; add jsonl: FILE")
        if not (self.stdlib or self.text or self.jsonl):
            raise ValueError("name a source: {text: FILE}, {jsonl: FILE, text: FIELD} or {stdlib: python}")
        return self


class Data(_Part):
    """Sources by split. `{stdlib: python}` alone stands for all splits, divided by a hash of each file's path."""

    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None
    stdlib: Literal["python"] | None = None

    @model_validator(mode="after")
    def _some(self) -> Data:
        if self.stdlib and (self.train or self.validation or self.test):
            raise ValueError("stdlib stands alone: it brings its own splits")
        if not self.stdlib and not (self.train or self.test):
            raise ValueError("name at least train or test")
        return self


class Architecture(_Part):
    """A model to be trained from scratch, and the tokenizer trained for it."""

    architecture: Literal["llama"]
    layers: int = Field(ge=1, le=512)
    hidden: int = Field(ge=8, le=65536)
    heads: int = Field(ge=1, le=512)
    kv_heads: int | None = Field(default=None, ge=1, le=512)
    ffn: int = Field(ge=8, le=262144)
    vocabulary: int = Field(default=4096, ge=300, le=262144)
    context: int = Field(default=1024, ge=16, le=1 << 20)
    tied: bool = True

    @model_validator(mode="after")
    def _divisible(self) -> Architecture:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if (self.hidden // self.heads) % 2:
            raise ValueError("hidden ÷ heads must be even for rotary positions")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        return self


class Training(_Part):
    """How a model is trained. `time` is turned into tokens by measuring the first steps; `tokens` is exact. `compile`
    has torch compile every layer, which takes a while once.
    """

    time: Duration | None = None
    tokens: Count | None = None
    optimizer: Literal["auto", "adamw", "muon"] = "auto"
    learning_rate: float | Literal["auto"] = "auto"
    sequence_length: int = Field(default=256, ge=8, le=1 << 20)
    batch: int = Field(default=8, ge=1, le=1 << 16)
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: bool = False
    seed: int = Field(default=0, ge=0, lt=1 << 31)

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if self.time and self.tokens:
            raise ValueError("give time or tokens, not both")
        return self


class ExactMatch(_Part):
    """A golden set: a prompt and its answer per line."""

    jsonl: str
    prompt: str
    answer: str
    metric: Literal["exact_match"]


class QualityGate(_Part):
    """What must be kept. The bad end of the 95 % interval decides, against the better of baseline and control."""

    retain: Fraction = 0.95
    metrics: list[Literal["perplexity"]] = Field(default=["perplexity"], min_length=1)


class ServiceLevel(_Part):
    """Limits of the served build under `traffic`. Each metric knows its direction.

    `tokens_per_second` counts output tokens; `speedup` is the same ÷ the baseline's, measured side by side.
    """

    ttft_p95: Duration | None = None
    tpot_p95: Duration | None = None
    memory: Bytes | None = None
    tokens_per_second: float | None = Field(default=None, gt=0)
    speedup: float | None = Field(default=None, gt=0)


class Traffic(_Part):
    concurrency: int = Field(default=16, ge=1, le=1024)
    prompt_tokens: int = Field(default=64, ge=1)
    output_tokens: int = Field(default=64, ge=1)


class Search(_Part):
    """How wide to look. `distill_tokens: 0` is the tier without training: bits and serving configuration only.

    `speedup` is what shapes are chosen for (default: the service level's, else 2); it is an aim, not a limit.
    """

    methods: Literal["auto"] | list[Literal["depth", "width", "kv_groups", "int8", "int4"]] = "auto"
    engines: Literal["auto"] | list[Literal["openvino", "transformers"]] = "auto"
    distill_tokens: Count | Literal["auto"] = Field(default="auto", union_mode="left_to_right")
    finalists: int = Field(default=1, ge=1, le=16)
    speedup: float | None = Field(default=None, gt=1, le=100)
    from_scratch: bool = False


class Budget(_Part):
    time: Duration = 7200.0


class Recipe(_Part):
    """A whole recipe. `Recipe.load` reads a file; relative paths in it are relative to that file."""

    version: Literal[1]
    name: Name
    task: Literal["text-generation"] = "text-generation"
    model: str | Architecture
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
        if isinstance(self.model, Architecture) and not (self.data.train or self.data.stdlib):
            raise ValueError("a model trained from scratch needs data.train or data.stdlib")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Raises `RecipeError` naming line, key path and the nearest valid key."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
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
        data = self.data.model_dump(exclude_none=True)
        for source in data.values():
            if isinstance(source, dict):
                key = "jsonl" if "jsonl" in source else "text"
                if key in source:
                    source[key] = str((folder / source[key]).resolve())
        model = self.model
        if isinstance(model, str) and model.startswith(("./", "../")):
            model = str((folder / model).resolve())
        return self.model_copy(update={"data": Data.model_validate(data), "model": model})

    def digest(self) -> str:
        """SHA-256 of the recipe's meaning: comments, order and units do not count."""
        plain = self.model_dump(mode="json")
        return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _explain(error: pydantic.ValidationError, document: Document) -> RecipeError:
    """The first fault as a sentence with its place and, for an unknown key, the nearest valid one."""
    # Of the arms of a union, the one that got furthest is the one that was meant.
    faults = sorted(
        error.errors(),
        key=lambda f: (f["type"] != "extra_forbidden", -len(f["loc"]), f["type"] != "value_error"),
    )
    fault = faults[0]
    path = _written(fault["loc"], document.values)
    if fault["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(known)}."
        return RecipeError(f"unknown key {str(path[-1])!r}.", where=document.place(path), remedy=remedy)
    if fault["type"] == "missing":
        return RecipeError(f"the key {str(fault['loc'][-1])!r} is missing.", where=document.place(path))
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


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that may stand in the mapping at `path`."""
    part: type[BaseModel] = Recipe
    for key in path:
        if isinstance(key, str) and key in part.model_fields:
            models = _models(part.model_fields[key].annotation)
            if models:
                part = models[0]
    return list(part.model_fields)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for arm in get_args(annotation) for model in _models(arm)]
