"""A model's folder as it lies on a disk: its files, the links among them, and what it is called.

Only the folder itself is looked at: transformers reads nothing below it, so what lies in folders inside
(`original/`, `onnx/`, `.git/`) is a bystander that is neither read nor stored.
"""

from __future__ import annotations

import os
from pathlib import Path

from trimtab.spec.errors import ModelError

_LONGEST_NAME = 64
_SNAPSHOTS, _BLOBS, _REPOSITORY = "snapshots", "blobs", "models--"


def listing(folder: Path) -> dict[str, Path]:
    """Name → the real file, of every file that is not hidden. A link counts as the file that it leads to.

    Links may lead to files in the folder itself or in a Hugging Face cache; those of weights to anywhere, since
    weights are checked to be nothing else (`store.safetensors_header`). Raises `ModelError` for other links, for
    links to folders or to nothing, and for pipes, sockets and devices.
    """
    root = Path(os.path.realpath(folder))
    found = {}
    for entry in _entries(root, folder):
        if entry.name.startswith(".") or entry.is_dir(follow_symlinks=False):
            continue
        # Not `Path.resolve`, which raises on a loop of links; a loop is no file.
        target = Path(os.path.realpath(entry.path))
        if not os.path.isfile(target) or not _may_lead_to(target, entry.name, root):  # noqa: PTH113 (never raises)
            raise ModelError(
                "this is a special file, or a link that leads nowhere, to a folder or out of the folder.",
                where=str(folder / entry.name),
                remedy="Replace it by the file itself, or delete it.",
            )
        found[entry.name] = target
    return found


def model_name(folder: Path) -> str:
    """What a folder is called: its name as given, and of a cache's `models--ORG--NAME/snapshots/HASH` NAME."""
    # Made absolute without following links: whoever gives a link its name means that name.
    path = Path(os.path.abspath(folder.expanduser()))  # noqa: PTH100
    repository = path.parent.parent.name
    if path.parent.name == _SNAPSHOTS and repository.startswith(_REPOSITORY):
        return repository.removeprefix(_REPOSITORY).rpartition("--")[2] or path.name
    return " ".join("".join(c if c.isprintable() else " " for c in path.name).split()) or "model"


def store_name(folder: Path) -> str:
    """A folder's name as the store takes it: `Qwen3-0.6B` → `qwen3-0.6b`."""
    letters = [c if c.isalnum() or c in "._-" else "-" for c in model_name(folder).lower() if c.isascii()]
    return "".join(letters).lstrip("._-")[:_LONGEST_NAME] or "model"


def _entries(root: Path, folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except NotADirectoryError as error:
        raise ModelError(
            "this is not a folder.", where=str(folder), remedy="Give a folder that holds config.json."
        ) from error
    except OSError as error:
        words = "there is no such folder" if isinstance(error, FileNotFoundError) else "it cannot be read"
        raise ModelError(
            f"{words}.",
            where=str(folder),
            remedy="Give a Hugging Face model folder: config.json, *.safetensors and the tokenizer's files.",
        ) from error


def _may_lead_to(target: Path, name: str, root: Path) -> bool:
    if target.is_relative_to(root) or name.endswith(".safetensors"):
        return True
    # A downloaded snapshot is a folder of links into the `blobs` beside it.
    if root.parent.name == _SNAPSHOTS and target.is_relative_to(root.parent.parent):
        return True
    # A folder that a download filled with links has them into the cache, wherever that is.
    return target.parent.name == _BLOBS and target.parent.parent.name.startswith(_REPOSITORY)
