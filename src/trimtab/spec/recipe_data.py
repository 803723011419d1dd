"""The recipe's `data:`: where text, labelled text and images come from, by split."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from trimtab.spec.errors import UsageError
from trimtab.spec.part import Part
from trimtab.spec.tasks import DataKind


class Source(Part):
    """Exactly one of `text`, `jsonl` (with `text` or `messages` naming a field), `stdlib`, `images`, `npz`.

    For `{jsonl: F, text: FIELD}` the key `text` names the field; for `{text: FILE}` it names the file. `label` names
    the field of a text's class. `images` is a folder with one of images for every class; `size` has each of them
    resized to so many pixels in height and width. `npz` holds `images`, uint8 (n, h, w) or (n, h, w, channels), and
    `labels` (n,), whole numbers or words.
    """

    text: str | None = None
    jsonl: str | None = None
    messages: str | None = None
    label: str | None = None
    stdlib: Literal["python"] | None = None
    images: str | None = None
    size: int | None = Field(default=None, ge=1, le=4096)
    npz: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Source:
        for key in ("stdlib", "images", "npz"):
            others = {name for name, value in self if value is not None} - {key}
            if getattr(self, key) and others - ({"size"} if key == "images" else set()):
                raise ValueError(f"{key} stands alone")
        if self.size and not self.images:
            raise ValueError("size goes with images: FOLDER")
        if self.jsonl and bool(self.text) == bool(self.messages):
            raise ValueError("jsonl needs one of text: FIELD or messages: FIELD")
        if self.messages and not self.jsonl:
            raise ValueError("messages names a field of a jsonl file; add jsonl: FILE")
        if self.label and not (self.jsonl and self.text):
            raise ValueError("label names a field beside a text's: {jsonl: FILE, text: FIELD, label: FIELD}")
        if not (self.stdlib or self.text or self.jsonl or self.images or self.npz):
            raise ValueError(
                "name a source: {text: FILE}, {jsonl: FILE, text: FIELD}, {stdlib: python}, {images: FOLDER} or "
                "{npz: FILE}"
            )
        return self

    @property
    def kind(self) -> DataKind:
        if self.images or self.npz:
            return "images"
        return "labelled text" if self.label else "text"

    def rooted(self, folder: Path) -> Source:
        """The same with its path made absolute from `folder`."""
        keys = ("jsonl", "text", "images", "npz")
        key = next((key for key in keys if getattr(self, key) and not self.stdlib), None)
        if key is None:
            return self
        return self.model_copy(update={key: str((folder / getattr(self, key)).resolve())})


class Data(Part):
    """Sources by split. `{stdlib: python}` alone stands for all splits, divided by a hash of each file's path."""

    train: Source | None = None
    validation: Source | None = None
    test: Source | None = None
    stdlib: Literal["python"] | None = None

    @model_validator(mode="after")
    def _some(self) -> Data:
        if self.stdlib and self.named:
            raise ValueError("stdlib stands alone: it brings its own splits")
        if not self.stdlib and not (self.train or self.test):
            raise ValueError("name at least train or test")
        if len(kinds := {source.kind for source in self.named}) > 1:
            raise ValueError(f"all splits must be of one kind, and these are {' and '.join(sorted(kinds))}")
        return self

    @property
    def named(self) -> list[Source]:
        return [source for source in (self.train, self.validation, self.test) if source]

    @property
    def kind(self) -> DataKind:
        return self.named[0].kind if self.named else "text"

    def rooted(self, folder: Path) -> Data:
        splits = {name: source and source.rooted(folder) for name, source in self if name != "stdlib"}
        return self.model_copy(update=splits)


def named_text(named: Source | Path | str) -> Source:
    """A source of text by what people call it: itself, a file's path, or `text:FILE`; with an absolute path.

    Raises `UsageError` for anything else.
    """
    if isinstance(named, Source):
        return named.rooted(Path.cwd())
    if isinstance(named, Path):
        return Source(text=str(named.resolve()))
    kind, _, file = named.partition(":")
    if kind != "text" or not file:
        raise UsageError(f"{named!r} names no data.", where="--data", remedy="Write text:FILE.")
    return Source(text=str(Path(file).resolve()))
