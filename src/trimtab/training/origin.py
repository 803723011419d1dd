"""What a checkpoint was made from: digests of model, tokenizer, data, teacher and settings.

A run never goes on silently from the checkpoint of another one: what differs is named, and refused unless allowed.
"""

from __future__ import annotations

import hashlib
from fnmatch import fnmatch
from pathlib import Path

import msgspec
import torch

from trimtab.data.prepared import prepared_digest
from trimtab.parallel.ranks import Ranks
from trimtab.spec.artifact import (
    CONFIG,
    INDEX,
    PREPROCESSOR,
    TOKENIZER_FILES,
    content_digest,
    deciding_files,
    file_digest,
    manifest_digest,
)
from trimtab.spec.errors import UsageError
from trimtab.training.job import TrainJob

_SHOWN = 12


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SHA-256 (hex) of each; `teacher` is that of "" where there is none."""

    model: str
    tokenizer: str
    data: str
    teacher: str
    settings: str


def origin(job: TrainJob, ranks: Ranks) -> Origin:
    """Rank 0 reads the files, all get the answer. Every rank must call it."""
    names = Origin.__struct_fields__
    found = torch.zeros(len(names) * 32, dtype=torch.uint8)
    if ranks.first:
        model = Path(job.model)
        digests = {
            "model": _digest(model, (CONFIG, INDEX, "*.safetensors")),
            "tokenizer": _digest(model, (*TOKENIZER_FILES, PREPROCESSOR)),
            "data": prepared_digest(Path(job.data)),
            "teacher": content_digest(Path(job.teacher)) if job.teacher else "",
            "settings": job.settings_digest(),
        }
        # Whatever form a digest has, what travels is one of fixed length.
        text = b"".join(hashlib.sha256(digests[name].encode()).digest() for name in names)
        found = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    text = bytes(ranks.broadcast(found.to(ranks.device)).cpu().numpy())
    return Origin(**{name: text[32 * at : 32 * at + 32].hex() for at, name in enumerate(names)})


def check_origin(saved: Origin, present: Origin, *, where: Path, accept: bool) -> list[str]:
    """What differs, in words. Raises `UsageError` if anything does and is not accepted."""
    changed = [name for name in Origin.__struct_fields__ if getattr(saved, name) != getattr(present, name)]
    if changed and not accept:
        details = ", ".join(
            f"{name} {getattr(saved, name)[:_SHOWN]} there, {getattr(present, name)[:_SHOWN]} now"
            for name in changed
        )
        raise UsageError(
            f"the checkpoint {where.name} belongs to another job: another {', another '.join(changed)} ({details}).",
            where=str(where.parent),
            remedy="Use --fresh to start over, another --output, or --accept-changes to go on all the same.",
        )
    return changed


def _digest(folder: Path, patterns: tuple[str, ...]) -> str:
    chosen = {
        name: file_digest(path)
        for name, path in deciding_files(folder).items()
        if any(fnmatch(name, pattern) for pattern in patterns)
    }
    return manifest_digest(chosen) if chosen else ""
