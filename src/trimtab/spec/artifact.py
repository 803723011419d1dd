"""What an artifact is made of: which files count for which digest, and its passport.

The *content digest* covers what decides an answer (config, weights, tokenizer, preprocessor, licence); the
*version digest* covers everything but the signature. Both are SHA-256 of a manifest of per-file SHA-256.
"""

from __future__ import annotations

import hashlib
import shutil
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import msgspec

from trimtab.spec.measures import Quality, Speed

SIGNATURE = "model.sig"
PASSPORT = "passport.json"
SERVING = "serving.json"
CARD = "README.md"
# Written by us about the model; changing them does not change an answer.
_RECORDS = frozenset({SIGNATURE, PASSPORT, SERVING, CARD})
# Formats that can run code when loaded, by suffix. Refused wherever a folder comes in.
PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".h5", ".keras", ".pt2"}
)

# What travels with a model from folder to folder, beside config and weights.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
    "chat_template.json",
)
PREPROCESSOR = "preprocessor_config.json"
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*", "ATTRIBUTION*")
COMPANIONS = (*TOKENIZER_FILES, PREPROCESSOR, "generation_config.json", *LICENCE_FILES)


class Passport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The record of where an artifact came from and what was measured of it.

    `parent` is the content digest of the model it was made from; `steps` says in words what was done to it.
    """

    name: str
    architecture: str
    parameters: int
    parent: str | None = None
    recipe_digest: str | None = None
    data_digest: str | None = None
    steps: tuple[str, ...] = ()
    quality: Quality | None = None
    speed: Speed | None = None
    engines: tuple[str, ...] = ()
    trimtab_version: str = ""
    created: str = ""


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(folder: Path) -> list[PurePosixPath]:
    """Every file of a folder, relative, sorted. Links are not followed and count as no file."""
    return sorted(
        PurePosixPath(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def manifest(folder: Path, *, content_only: bool) -> dict[str, str]:
    """Relative path → SHA-256 (hex), for the content digest or for the version digest."""
    leave_out = _RECORDS if content_only else {SIGNATURE}
    return {str(name): file_digest(folder / name) for name in files(folder) if str(name) not in leave_out}


def content_part(entries: dict[str, str]) -> dict[str, str]:
    """Of a manifest of everything, what counts for the content digest."""
    return {name: digest for name, digest in entries.items() if name not in _RECORDS}


def manifest_digest(entries: dict[str, str]) -> str:
    return hashlib.sha256(msgspec.json.encode(entries, order="deterministic")).hexdigest()


def content_digest(folder: Path) -> str:
    return manifest_digest(manifest(folder, content_only=True))


def copy_files(source: Path, folder: Path, patterns: tuple[str, ...]) -> list[str]:
    """Copies the files of `source` whose names match into `folder`, which exists. Returns their names, sorted."""
    found = [
        path.name
        for path in sorted(source.iterdir())
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)
    ]
    for name in found:
        shutil.copyfile(source / name, folder / name)
    return found
