"""What may come into the store: the files of a model folder, or a sentence why not. Copies nothing.

Files are judged by type, never by a scanner of their content that could be fooled: weights are safetensors,
code is refused, formats that run code when loaded are refused, links may not lead out of the folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from trimtab.spec.artifact import PASSPORT, PICKLES, SERVING, SIGNATURE, Passport
from trimtab.spec.errors import ModelError
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.safetensors_header import check_safetensors

MAX_JSON_BYTES = 64 * 2**20  # tokenizer.json of a large vocabulary has 20 MB
CODE = frozenset({".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe"})
_PICKLE_STARTS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_ARCHIVE_START = b"PK\x03\x04"  # torch.save writes a zip archive with a pickle in it


def admit(folder: Path) -> dict[PurePosixPath, Path]:
    """Relative name → the file to copy. Hidden files and an old signature are left out; all else comes along.

    Raises `ModelError` that names the file at fault.
    """
    if not folder.is_dir():
        raise ModelError(
            "this is not a folder.", where=str(folder), remedy="Give a folder that holds config.json."
        )
    found = dict(_walk(folder))
    if PurePosixPath("config.json") not in found:
        raise ModelError(
            "this folder has no config.json, so it is no model.",
            where=str(folder),
            remedy="Give the folder that save_pretrained wrote, or a downloaded snapshot.",
        )
    for name, source in found.items():
        _check_file(name, source)
    _check_index(found, folder)
    for name, kind in ((PASSPORT, Passport), (SERVING, ServingConfiguration)):
        _check_record(found.get(PurePosixPath(name)), kind)
    return found


def weights(files: Mapping[PurePosixPath, Path]) -> list[Path]:
    return [source for name, source in files.items() if name.suffix == ".safetensors"]


def count_elements(files: Mapping[PurePosixPath, Path]) -> int:
    """Elements of all tensors, read from the headers."""
    return sum(check_safetensors(path) for path in weights(files))


def read_json(path: Path) -> object:
    """Raises `ModelError` for what is no JSON, or too large to be a model's."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(f"this file has more than {MAX_JSON_BYTES} bytes.", where=str(path))
    try:
        return msgspec.json.decode(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"this is not valid JSON: {error}.", where=str(path)) from error


def _walk(folder: Path) -> list[tuple[PurePosixPath, Path]]:
    # A downloaded snapshot is a folder of links into its sibling `blobs`; no other link may lead out.
    root = folder.resolve()
    allowed = root.parent.parent if root.parent.name == "snapshots" else root
    found = []
    for parent, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names) + [name for name in folders if Path(parent, name).is_symlink()]:
            path = Path(parent, name)
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if name.startswith(".") or str(relative) == SIGNATURE:
                continue
            target = path.resolve()
            if not target.is_file() or not target.is_relative_to(allowed):
                raise ModelError(
                    "this is a special file, or a link that leads nowhere or out of the folder.",
                    where=str(folder / relative),
                    remedy="Replace it by the file itself, or delete it.",
                )
            found.append((relative, target))
    return found


def _check_file(name: PurePosixPath, source: Path) -> None:
    suffix = name.suffix.lower()
    with source.open("rb") as file:
        start = file.read(4)
    if suffix in PICKLES or start.startswith(_PICKLE_STARTS) or start == _ARCHIVE_START:
        raise ModelError(
            "this file is of a kind that can run code when it is loaded (a pickle or the like).",
            where=str(name),
            remedy="Convert the weights to safetensors, or delete the file if they are there already.",
        )
    if suffix in CODE:
        raise ModelError(
            "this folder brings its own code, which is never run.",
            where=str(name),
            remedy="Use a model whose architecture transformers has built in, without the code files.",
        )
    if suffix == ".safetensors":
        check_safetensors(source)
    elif suffix == ".json" and _has_remote_code(read_json(source)):
        raise ModelError(
            "'auto_map' asks to run code of the model's author (trust_remote_code), which is never done.",
            where=str(name),
            remedy="Use a model whose architecture transformers has built in.",
        )


def _has_remote_code(value: object) -> bool:
    return isinstance(value, dict) and bool(value.get("auto_map"))


def _check_index(found: Mapping[PurePosixPath, Path], folder: Path) -> None:
    """The index of sharded weights may name only files that came along."""
    name = PurePosixPath("model.safetensors.index.json")
    if name not in found:
        return
    index = read_json(found[name])
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise ModelError("this index has no weight_map.", where=str(folder / name))
    for shard in {str(shard) for shard in shards.values()}:
        if PurePosixPath(shard) not in found:
            raise ModelError(
                f"this index names {shard!r}, which is not in the folder.",
                where=str(folder / name),
                remedy="Fetch the missing file.",
            )


def _check_record(path: Path | None, kind: type[msgspec.Struct]) -> None:
    if path is None:
        return
    try:
        msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise ModelError(
            f"this is no valid {kind.__name__}: {error}.",
            where=str(path),
            remedy="Delete it, or write it again.",
        ) from error
