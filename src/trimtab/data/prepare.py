"""From a recipe's `data:` to a prepared folder: check overlap, get a tokenizer, encode every split.

Streams: no split is held in memory as text. Written to a temporary folder and renamed, so a prepared folder
is always whole; asking the same again finds it and does nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from trimtab.data.encode import Encoder, encode_split
from trimtab.data.overlap import check_overlap, overlap
from trimtab.data.prepared import RECORD, Prepared, Record
from trimtab.data.sources import files, plain_text
from trimtab.data.splits import SPLITS, sources, split_documents
from trimtab.data.tokenizer import train_bpe
from trimtab.spec.artifact import TOKENIZER_FILES, copy_files, file_digest
from trimtab.spec.errors import DataError
from trimtab.spec.ids import digest
from trimtab.spec.recipe_data import Data

# Raised when prepared folders made by older code must not be reused.
_FORMAT = 1
_DEFAULT_VOCABULARY = 4096


def prepare(data: Data, folder: Path, *, tokenizer: Path | None, vocabulary: int | None) -> Prepared:
    """Tokens of every split in `folder`; made anew only if the request or a source file changed.

    `tokenizer` is a folder with `tokenizer.json` (a model's); without one a BPE of `vocabulary` ids is
    trained on the train split. Raises `DataError`: no text, missing or malformed files, test text that is
    in train too.
    """
    folder = Path(folder)
    request = _request(data, tokenizer, vocabulary)
    if (folder / RECORD).is_file() and (found := Prepared.load(folder)).record.request == request:
        return found
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        share = _overlap(data)
        _take_tokenizer(data, temporary / "tokenizer", tokenizer, vocabulary or _DEFAULT_VOCABULARY)
        record = _encode(data, temporary, request, share)
        (temporary / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Prepared.load(folder)


def _request(data: Data, tokenizer: Path | None, vocabulary: int | None) -> str:
    """Digest of what is asked, with size and time of change of every file that is read."""
    stamps = []
    for path in (path for source in sources(data) for path in files(source)):
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}.", where=str(path)) from error
        stamps.append((str(path), status.st_size, status.st_mtime_ns))
    wanted = file_digest(tokenizer / "tokenizer.json") if tokenizer else vocabulary
    return digest((_FORMAT, data.model_dump(), stamps, wanted))


def _overlap(data: Data) -> float:
    """The share of test passages that train has too. Chats are compared as their messages' text."""
    share = overlap(*(map(plain_text, split_documents(data, split)) for split in ("train", "test")))
    check_overlap(share)
    return share


def _take_tokenizer(data: Data, folder: Path, given: Path | None, vocabulary: int) -> None:
    folder.mkdir()
    if given is not None:
        copy_files(given, folder, (*TOKENIZER_FILES, "config.json", "generation_config.json"))
        return
    texts = (plain_text(document) for document in split_documents(data, "train"))
    train_bpe(texts, vocabulary, folder)


def _encode(data: Data, folder: Path, request: str, share: float) -> Record:
    encoder = Encoder(folder / "tokenizer")
    whole = hashlib.sha256(file_digest(folder / "tokenizer" / "tokenizer.json").encode())
    with closing(encoder):
        counts = {
            split: encode_split(encoder, split_documents(data, split), folder, split) for split in SPLITS
        }
    for split in SPLITS:
        whole.update(file_digest(folder / f"{split}.tokens").encode())
    if not any(count.tokens for count in counts.values()):
        raise DataError(
            "the data holds no text.", where="data", remedy="Point the recipe at files that have some."
        )
    return Record(
        vocabulary=encoder.vocabulary,
        eos_id=encoder.eos_id,
        token_bytes=np.dtype(encoder.token_type).itemsize,
        tokens={split: count.tokens for split, count in counts.items()},
        documents={split: count.documents for split, count in counts.items()},
        characters={split: count.characters for split, count in counts.items()},
        overlap=share,
        digest=whole.hexdigest(),
        request=request,
    )
