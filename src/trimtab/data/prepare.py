"""From a recipe's `data:` to a prepared folder: check overlap, get a tokenizer, encode every split.

Streams: no split is held in memory as text. Written to a temporary folder and renamed, so a prepared folder
is always whole; asking the same again finds it and does nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from trimtab.data.classes import class_names, numbered
from trimtab.data.encode import Encoder, encode_split
from trimtab.data.new_folder import new_folder
from trimtab.data.overlap import check_overlap, overlap
from trimtab.data.prepared import PARTS, RECORD, Prepared, Record
from trimtab.data.sources import files, plain_text
from trimtab.data.splits import SPLITS, Splits, sources
from trimtab.data.tokenizer import train_bpe
from trimtab.spec.artifact import TOKENIZER_FILES, copy_files, file_digest
from trimtab.spec.errors import DataError
from trimtab.spec.ids import digest
from trimtab.spec.recipe_data import Data

# Raised when prepared folders made by older code must not be reused.
_FORMAT = 2
_DEFAULT_VOCABULARY = 4096
# What a folder's tokenizer is made of: a config may name the end of a text.
_TOKENIZER = (*TOKENIZER_FILES, "config.json", "generation_config.json")


def prepare(
    data: Data,
    folder: Path,
    *,
    tokenizer: Path | None,
    vocabulary: int | None,
    encoder: bool = False,
    known_classes: Sequence[str] = (),
) -> Prepared:
    """Tokens of every split in `folder`, and classes if texts have labels; made anew only if the request or a source
    file changed.

    `tokenizer` is a folder with `tokenizer.json` (a model's); without one a BPE of `vocabulary` ids is
    trained on the train split, with an `encoder`'s special tokens or a decoder's. `known_classes` are a model's.
    Raises `DataError`: no text, missing or malformed files, test text that is in train too, one class alone, classes
    that train has not; `TrimtabError` where nothing can be written.
    """
    folder = Path(folder)
    request = _request(data, tokenizer, (vocabulary, encoder), known_classes)
    if (found := Prepared.found(folder, request)) is not None:
        return found
    splits = Splits(data)
    with new_folder(folder, PARTS, RECORD) as temporary:
        share = _overlap(splits)
        if tokenizer is None:
            texts = (plain_text(document) for document in splits.documents("train"))
            train_bpe(texts, vocabulary or _DEFAULT_VOCABULARY, temporary / "tokenizer", encoder=encoder)
        else:
            (temporary / "tokenizer").mkdir()
            copy_files(tokenizer, temporary / "tokenizer", _TOKENIZER)
        # Of a model's tokenizer faults are told by its own folder's name; the copy's is gone by then.
        with closing(Encoder(tokenizer or temporary / "tokenizer")) as opened:
            record = _encode(data, splits, opened, temporary, request, share, known_classes)
        (temporary / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
    return Prepared.load(folder)


def _request(
    data: Data, tokenizer: Path | None, trained: tuple[int | None, bool], known_classes: Sequence[str]
) -> str:
    """Digest of what is asked, with size and time of change of every file that is read."""
    stamps = []
    for path in (path for source in sources(data) for path in files(source)):
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"the file cannot be read: {error.strerror}.", where=str(path)) from error
        stamps.append((str(path), status.st_size, status.st_mtime_ns))
    # Which token ends a text, and how chats are written, stands in other files than the tokenizer's own.
    used = [tokenizer / name for name in _TOKENIZER if (tokenizer / name).is_file()] if tokenizer else []
    wanted = [(path.name, file_digest(path)) for path in used] or trained
    return digest((_FORMAT, data.model_dump(), stamps, wanted, tuple(known_classes)))


def _overlap(splits: Splits) -> float:
    """The share of test passages that train has too. Chats are compared as their messages' text."""
    share = overlap(*(map(plain_text, splits.documents(split)) for split in ("train", "test")))
    check_overlap(share)
    return share


def _encode(
    data: Data,
    splits: Splits,
    encoder: Encoder,
    folder: Path,
    request: str,
    share: float,
    known_classes: Sequence[str],
) -> Record:
    whole = hashlib.sha256(file_digest(folder / "tokenizer" / "tokenizer.json").encode())
    counts = {split: encode_split(encoder, splits.documents(split), folder, split) for split in SPLITS}
    if not any(count.tokens for count in counts.values()):
        raise DataError(
            "the data holds no text.", where="data", remedy="Point the recipe at files that have some."
        )
    classes: tuple[str, ...] = ()
    if data.kind == "labelled text":
        classes = class_names(counts["train"].labels, known_classes)
        for split in SPLITS:
            names = msgspec.json.decode((folder / f"{split}.names.json").read_bytes())
            numbers = numbered(counts[split].labels, names, classes, split)
            (folder / f"{split}.labels").write_bytes(numbers.tobytes())
            whole.update(file_digest(folder / f"{split}.labels").encode())
        whole.update(msgspec.json.encode(classes))
    for split in SPLITS:
        whole.update(file_digest(folder / f"{split}.tokens").encode())
        if counts[split].unlearned:
            whole.update(file_digest(folder / f"{split}.unlearned").encode())
    return Record(
        vocabulary=encoder.vocabulary,
        eos_id=encoder.eos_id,
        token_bytes=np.dtype(encoder.token_type).itemsize,
        tokens={split: count.tokens for split, count in counts.items()},
        documents={split: count.documents for split, count in counts.items()},
        characters={split: count.characters for split, count in counts.items()},
        unlearned={split: count.unlearned for split, count in counts.items()},
        highest_id=max(count.highest for count in counts.values()),
        overlap=share,
        digest=whole.hexdigest(),
        request=request,
        classes=classes,
    )
