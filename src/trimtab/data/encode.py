"""Documents → token files, streaming: batches through the Rust tokenizer, appended to a file per split.

Text of plain documents can never become a special token, whatever it spells. Of a chat, the template writes control
tokens and so do the model's own messages; what others say stays text, as it does when it is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from trimtab.data.rendering import Rendered, Renderer
from trimtab.data.sources import Document
from trimtab.data.tokenizer import end_ids, end_of_text_id, load_tokenizer
from trimtab.spec.errors import DataError, UsageError
from trimtab.text.markup import Markup
from trimtab.text.templates import ChatTemplate
from trimtab.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

_BATCH_DOCUMENTS = 256


class Count(NamedTuple):
    """`labels` are those of the documents, where they have some. `unlearned` counts tokens that are not to be learned,
    `highest` is the largest id.
    """

    tokens: int
    documents: int
    characters: int
    labels: list[str]
    unlearned: int
    highest: int


class Encoded(NamedTuple):
    """A document's ids, and for each whether it is read and not learned; None where all are learned."""

    document: Document
    ids: list[int]
    unlearned: npt.NDArray[np.bool_] | None = None


class Encoder:
    """A tokenizer folder, ready to encode documents. `token_type`: the smallest NumPy type for its ids."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` for a folder without tokenizer or end-of-text token."""
        self._plain, self._marked = load_tokenizer(folder), load_tokenizer(folder)
        self._plain.encode_special_tokens = True
        self.eos_id = end_of_text_id(folder, self._plain)
        self._ends = end_ids(folder, self._plain)
        # Ids may have gaps: what counts is the largest.
        self.vocabulary = max((*self._plain.get_vocab(with_added_tokens=True).values(), self.eos_id)) + 1
        self.token_type = "<u2" if self.vocabulary <= 1 << 16 else "<u4"
        # Last, because it starts a process.
        self._template = ChatTemplate.load(folder)
        source = self._template.source if self._template is not None else ""
        self._markup = Markup(Tokenizer.load(folder, guard=False), source)
        self._renderer = Renderer(self._template, self._markup)

    def encode(self, documents: Iterable[Document]) -> Iterator[Encoded]:
        """Ids per document, with end-of-text where the document ends; one with a label stands for itself."""
        remaining = iter(documents)
        while batch := list(islice(remaining, _BATCH_DOCUMENTS)):
            yield from self._chats(batch) if batch[0].messages else self._texts(batch)

    def _texts(self, batch: list[Document]) -> Iterator[Encoded]:
        encodings = self._plain.encode_batch([each.text for each in batch], add_special_tokens=False)
        for document, encoding in zip(batch, encodings, strict=True):
            ends = document.ends and not document.label
            yield Encoded(document, encoding.ids + [self.eos_id] * ends)

    def _chats(self, batch: list[Document]) -> Iterator[Encoded]:
        rendered = [self._renderer.render(chat) for chat in batch]
        encodings = self._marked.encode_batch([each.text for each in rendered], add_special_tokens=False)
        for document, text, encoding in zip(batch, rendered, encodings, strict=True):
            if text.marked is not None:
                yield self._marked_chat(document, text.marked)
                continue
            added = [self.eos_id] * (not self._has_ended(text.text, encoding))
            unlearned = None
            if text.unlearned:
                last = not document.messages[-1].counts
                unlearned = np.array([*_unlearned(text, encoding), *(last for _ in added)], dtype=bool)
            yield Encoded(document, encoding.ids + added, unlearned)

    def _marked_chat(self, chat: Document, marked: str) -> Encoded:
        try:
            ids = self._markup.encode(marked)
        except UsageError as error:
            raise DataError(error.message, where=f"{chat.where} messages", remedy=error.remedy) from error
        shown = (each for each in reversed(ids) if each in self._ends or self._plain.decode([each]).strip())
        return Encoded(chat, ids + [self.eos_id] * (next(shown, None) not in self._ends))

    def _has_ended(self, text: str, encoding: Encoding) -> bool:
        """Whether the template wrote an end token itself, with nothing but blanks behind it."""
        for number, (start, end) in zip(reversed(encoding.ids), reversed(encoding.offsets), strict=True):
            if number in self._ends:
                return True
            if text[start:end].strip():
                return False
        return False

    def close(self) -> None:
        """Ends the template's process, if one was started."""
        if self._template is not None:
            self._template.close()


def _unlearned(rendered: Rendered, encoding: Encoding) -> Iterator[bool]:
    """Of every token whether any of it lies in a stretch that is not to be learned."""
    for start, end in encoding.offsets:
        yield any(
            start < until and (end > begin or start == end >= begin) for begin, until in rendered.unlearned
        )


def encode_split(encoder: Encoder, documents: Iterable[Document], folder: Path, split: str) -> Count:
    """Write `SPLIT.tokens`, `SPLIT.offsets` and `SPLIT.names.json`; and `SPLIT.unlearned`, a byte a token, where some
    are not to be learned.
    """
    offsets, names, characters, highest = [0], [], 0, -1
    labels: list[str] = []
    # Few tokens of few data sets are not learned, so their places are kept and not a mask.
    unlearned: list[npt.NDArray[np.int64]] = []
    with (folder / f"{split}.tokens").open("wb") as file:
        for document, ids, left_out in encoder.encode(documents):
            # Not `tofile`, which does not say why it cannot write.
            file.write(np.asarray(ids, dtype=encoder.token_type).tobytes())
            if left_out is not None:
                unlearned.append(np.flatnonzero(left_out) + offsets[-1])
            offsets.append(offsets[-1] + len(ids))
            names.append(document.name)
            characters += len(document.text)
            highest = max(highest, max(ids, default=-1))
            labels += [document.label] if document.label else []
    (folder / f"{split}.offsets").write_bytes(np.asarray(offsets, dtype="<i8").tobytes())
    (folder / f"{split}.names.json").write_bytes(msgspec.json.encode(names))
    places = np.concatenate(unlearned) if unlearned else np.empty(0, dtype=np.int64)
    if len(places):
        mask = np.zeros(offsets[-1], dtype=np.uint8)
        mask[places] = 1
        (folder / f"{split}.unlearned").write_bytes(mask.tobytes())
    return Count(offsets[-1], len(names), characters, labels, len(places), highest)
