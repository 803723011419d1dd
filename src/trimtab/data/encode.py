"""Documents → token files, streaming: batches through the Rust tokenizer, appended to a file per split.

Text of plain documents can never become a special token, whatever it spells; a chat's markers can, because
the template wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from trimtab.data.chat import render_plain
from trimtab.data.sources import Document
from trimtab.data.tokenizer import end_of_text_id, load_tokenizer
from trimtab.spec.errors import DataError, UsageError
from trimtab.text.templates import ChatTemplate

_BATCH_DOCUMENTS = 256


class Count(NamedTuple):
    """`labels` are those of the documents, where they have some."""

    tokens: int
    documents: int
    characters: int
    labels: list[str]


class Encoder:
    """A tokenizer folder, ready to encode documents. `token_type`: the smallest NumPy type for its ids."""

    def __init__(self, folder: Path) -> None:
        """Raises `DataError` for a folder without tokenizer or end-of-text token."""
        self._plain, self._marked = load_tokenizer(folder), load_tokenizer(folder)
        self._plain.encode_special_tokens = True
        self._template = ChatTemplate.load(folder)
        self.vocabulary = self._plain.get_vocab_size()
        self.eos_id = end_of_text_id(folder, self._plain)
        self.token_type = "<u2" if max(self.vocabulary, self.eos_id + 1) <= 1 << 16 else "<u4"

    def encode(self, documents: list[Document]) -> list[list[int]]:
        """Ids per document, with end-of-text where the document ends; one with a label stands for itself."""
        chats = bool(documents and documents[0].messages)
        texts = [self._render(document) if chats else document.text for document in documents]
        tokenizer = self._marked if chats else self._plain
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        return [
            encoding.ids + [self.eos_id] * (document.ends and not document.label)
            for encoding, document in zip(encodings, documents, strict=True)
        ]

    def _render(self, chat: Document) -> str:
        """Through the tokenizer's own template, as the service does; without one, plainly."""
        if self._template is None:
            return render_plain(chat.messages)
        messages = [{"role": message.role, "content": message.content} for message in chat.messages]
        try:
            return self._template.render(messages, add_generation_prompt=False)
        except UsageError as error:
            raise DataError(error.message, where=f"{chat.name} messages", remedy=error.remedy) from error

    def close(self) -> None:
        """Ends the template's process, if one was started."""
        if self._template is not None:
            self._template.close()


def encode_split(encoder: Encoder, documents: Iterable[Document], folder: Path, split: str) -> Count:
    """Write `SPLIT.tokens`, `SPLIT.offsets` and `SPLIT.names.json`. Blank documents are left out."""
    offsets, names, characters = [0], [], 0
    labels: list[str] = []
    with (folder / f"{split}.tokens").open("wb") as file:
        for batch in _batches(
            document for document in documents if document.messages or document.text.strip()
        ):
            for document, ids in zip(batch, encoder.encode(batch), strict=True):
                np.asarray(ids, dtype=encoder.token_type).tofile(file)
                offsets.append(offsets[-1] + len(ids))
                names.append(document.name)
                characters += len(document.text)
                labels += [document.label] if document.label else []
    np.asarray(offsets, dtype="<i8").tofile(folder / f"{split}.offsets")
    (folder / f"{split}.names.json").write_bytes(msgspec.json.encode(names))
    return Count(offsets[-1], len(names), characters, labels)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(documents, _BATCH_DOCUMENTS)):
        yield batch
