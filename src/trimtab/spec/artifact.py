"""What an artifact is made of: which files count for which digest, and its passport.

The *content digest* covers what decides an answer (config, the weights that are loaded, tokenizer, preprocessor)
and licences; the *version digest* everything in a stored artifact but the signature. Both are SHA-256 of a
manifest of per-file SHA-256, and a file is what reading it gives: a link counts as its target.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import msgspec

from trimtab.spec.errors import ModelError
from trimtab.spec.folder import listing
from trimtab.spec.json_file import read_object
from trimtab.spec.measures import Quality, Speed

SIGNATURE = "model.sig"
PASSPORT = "passport.json"
SERVING = "serving.json"
CARD = "README.md"
# Written by us about the model; changing them does not change an answer.
RECORDS = frozenset({SIGNATURE, PASSPORT, SERVING, CARD})
# Formats that can run code when loaded, by suffix. Refused wherever a folder comes in.
PICKLES = frozenset(
    {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".h5", ".keras", ".pt2"}
)

CONFIG, GENERATION = "config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_SHARDS = 4096

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
COMPANIONS = (*TOKENIZER_FILES, PREPROCESSOR, GENERATION, *LICENCE_FILES)


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


def deciding_files(folder: Path, found: Mapping[str, Path] | None = None) -> dict[str, Path]:
    """Name → real file of what decides an answer, and of licences. A bystander is none of them.

    `found` is the folder's listing, where it was made before. Raises `ModelError` as that and `weight_names` do.
    """
    found = listing(folder) if found is None else found
    names = {*weight_names(found, folder), CONFIG, GENERATION, PREPROCESSOR, *TOKENIZER_FILES}
    if WEIGHTS not in found:
        names.add(INDEX)
    names |= {name for name in found if any(fnmatch(name, pattern) for pattern in LICENCE_FILES)}
    return {name: found[name] for name in sorted(names & found.keys())}


def weight_names(found: Mapping[str, Path], folder: Path) -> list[str]:
    """The files that stock transformers loads weights from: the whole file, else what the index names.

    None for a folder with neither. Raises `ModelError` for an index that is none, or names what is not there.
    """
    if WEIGHTS in found:
        return [WEIGHTS]
    if INDEX not in found:
        return []
    shards = _shards(read_object(found[INDEX], folder / INDEX), folder / INDEX)
    if missing := [name for name in shards if name not in found]:
        raise ModelError(
            f"{len(missing)} of the {len(shards)} files that this index names are not in the folder, "
            f"such as {missing[0]!r}.",
            where=str(folder / INDEX),
            remedy="Fetch what is missing.",
        )
    return shards


def _shards(index: Mapping[str, object], where: Path) -> list[str]:
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
        raise ModelError(
            "this index has no weight_map from tensors to files.", where=str(where), remedy="Fetch it again."
        )
    if not isinstance(index.get("metadata"), dict):
        raise ModelError(
            "this index has no metadata, without which transformers does not load it.",
            where=str(where),
            remedy='Add "metadata": {}.',
        )
    shards = sorted(set(places.values()))
    if len(shards) > MAX_SHARDS:
        raise ModelError(f"this index names more than {MAX_SHARDS} files.", where=str(where))
    for name in shards:
        if PurePosixPath(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"this index points outside of the folder, or to no safetensors file: {name[:80]!r}.",
                where=str(where),
                remedy="Fetch the index that belongs to the safetensors files.",
            )
    return shards


def content_digest(folder: Path) -> str:
    """Of a model's folder, whether its files are files or links. Equal for a snapshot and a copy of it.

    Raises `ModelError` for a folder with nothing in it that could be told apart from another's nothing.
    """
    entries = {name: file_digest(path) for name, path in deciding_files(folder).items()}
    if not entries:
        raise ModelError("this folder holds no file of a model.", where=str(folder))
    return manifest_digest(entries)


def files(folder: Path) -> list[PurePosixPath]:
    """Every file of a folder that we made, relative, sorted. Links are not followed and count as no file."""
    return sorted(
        PurePosixPath(path.relative_to(folder).as_posix())
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def content_part(entries: dict[str, str]) -> dict[str, str]:
    """Of a manifest of everything in an artifact, what counts for the content digest."""
    return {name: digest for name, digest in entries.items() if name not in RECORDS}


def manifest_digest(entries: dict[str, str]) -> str:
    """Raises `ValueError` for no entries: nothing has no digest, or all kinds of nothing would be the same."""
    if not entries:
        raise ValueError("an empty manifest has no digest")
    return hashlib.sha256(msgspec.json.encode(entries, order="deterministic")).hexdigest()


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
