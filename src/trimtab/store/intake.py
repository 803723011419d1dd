"""The gate: what may be taken as a model's folder, or a sentence why not. Copies nothing, loads nothing.

Every way in goes through `examine`: import, publish, serve, optimize, train, evaluate, compress, plan. Files are
judged by type, never by a scanner of their content that could be fooled: weights are safetensors, code is
refused, formats that run code when loaded are refused, links may not lead out. Only what decides an answer is
looked at and taken along (`spec.artifact.deciding_files`), with the card and the records that we write ourselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from trimtab.spec.artifact import (
    CARD,
    CONFIG,
    INDEX,
    PASSPORT,
    PICKLES,
    SERVING,
    WEIGHTS,
    Passport,
    deciding_files,
)
from trimtab.spec.errors import ModelError
from trimtab.spec.folder import listing
from trimtab.spec.json_file import read_bounded, read_object
from trimtab.spec.serving import ServingConfiguration
from trimtab.store.safetensors_header import Tensor, read_header
from trimtab.store.tensor_names import is_constant, is_quantized

# The tokenizer.json of a large vocabulary has 35 MB; nothing else but weights comes near.
MAX_FILE_BYTES = 64 * 2**20
# Of all files of a model together: twice the largest that is public.
MAX_TENSORS = 200_000
CODE = frozenset({".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe"})
_PICKLE_STARTS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_ARCHIVE_START = b"PK\x03\x04"  # torch.save writes a zip archive with a pickle in it
_WEIGHTS_SUFFIX = ".safetensors"
# JSON that we never read ourselves: tables of a tokenizer, whose own library bounds and checks them.
_TABLES = frozenset({"tokenizer.json", "vocab.json"})
_CONVERT = "Convert the weights to safetensors, for instance with save_pretrained."
_STOCK_MODEL = "Use a model whose architecture is part of transformers, without the code files."


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that passed. `files`: name → real file of all that counts; `tensors`: of its weights, by name."""

    folder: Path
    files: dict[PurePosixPath, Path]
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def parameters(self) -> int:
        """Elements of all tensors that are no constants; a head that is stored beside its embedding counts too."""
        return sum(tensor.elements for name, tensor in self.tensors.items() if not is_constant(name))


def admit(folder: Path) -> dict[PurePosixPath, Path]:
    """Name → the file to copy. Raises `ModelError` that names the file at fault."""
    return examine(folder).files


def examine(folder: Path) -> Admitted:
    """All that can be said of a folder without knowing its architecture, in milliseconds.

    Raises `ModelError` that names the file at fault.
    """
    folder = Path(folder)
    found = listing(folder)
    _refuse_what_runs(found, folder)
    if CONFIG not in found:
        raise _no_config(found, folder)
    config = read_object(found[CONFIG], folder / CONFIG)
    if not isinstance(config.get("model_type", ""), str):
        raise ModelError("model_type is not a word.", where=str(folder / CONFIG))
    _refuse_other_weights(config, folder)
    files = deciding_files(folder, found)
    if not any(name.endswith(_WEIGHTS_SUFFIX) for name in files):
        raise _no_weights(found, folder)
    _refuse_remote_code(found, files, folder)
    for name, kind in ((PASSPORT, Passport), (SERVING, ServingConfiguration)):
        _check_record(found.get(name), folder / name, kind)
    files |= {name: found[name] for name in (PASSPORT, SERVING, CARD) if name in found}
    for name, path in files.items():
        _check_file(name, path, folder)
    return Admitted(
        folder=folder,
        files={PurePosixPath(name): path for name, path in files.items()},
        config=config,
        tensors=_tensors(files, folder),
    )


def _refuse_what_runs(found: Mapping[str, Path], folder: Path) -> None:
    """Pickles and code, by name. One remedy, whichever command is asked."""
    for name in found:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in PICKLES:
            raise _pickle(folder / name, is_whole=WEIGHTS in found or INDEX in found)
        if suffix in CODE:
            raise ModelError(
                "this folder brings its own code, which is never run.",
                where=str(folder / name),
                remedy=_STOCK_MODEL,
            )


def _pickle(path: Path, *, is_whole: bool) -> ModelError:
    return ModelError(
        "this file is of a kind that can run code when it is loaded (a pickle or the like).",
        where=str(path),
        remedy="Delete the file: the weights are there as safetensors." if is_whole else _CONVERT,
    )


def _refuse_remote_code(found: Mapping[str, Path], files: Mapping[str, Path], folder: Path) -> None:
    """`auto_map` in any file that transformers could look it up in."""
    for name, path in found.items():
        if name not in files and not name.endswith("config.json"):
            continue
        if not name.endswith(".json") or name in _TABLES or name == INDEX:
            continue
        try:
            settings = read_object(path, folder / name)
        except ModelError:
            if name in files:
                raise
            continue  # a bystander that we read for no other reason
        if settings.get("auto_map"):
            raise ModelError(
                "'auto_map' asks to run code of the model's author (trust_remote_code), which is never done.",
                where=str(folder / name),
                remedy=_STOCK_MODEL,
            )


def _refuse_other_weights(config: Mapping[str, Any], folder: Path) -> None:
    if config.get("quantization_config") or config.get("compression_config"):
        raise _quantized(folder / CONFIG)
    if config.get("transformers_weights"):
        raise ModelError(
            "transformers_weights names weights of another name, which only some loaders follow.",
            where=str(folder / CONFIG),
            remedy=f"Call the file {WEIGHTS} and delete the key.",
        )


def _quantized(where: object) -> ModelError:
    return ModelError(
        "the weights are quantized already.", where=str(where), remedy="Give the unquantized model."
    )


def _no_config(found: Mapping[str, Path], folder: Path) -> ModelError:
    if "adapter_config.json" in found:
        return ModelError(
            "this is an adapter (LoRA or the like), not a whole model.",
            where=str(folder),
            remedy="Merge it into its base model (peft: merge_and_unload), save that, and give its folder.",
        )
    return ModelError(
        f"the folder has no {CONFIG}, so it is no model.",
        where=str(folder),
        remedy="Give the folder that save_pretrained wrote, or a downloaded snapshot.",
    )


def _no_weights(found: Mapping[str, Path], folder: Path) -> ModelError:
    others = sorted(name for name in found if name.endswith((_WEIGHTS_SUFFIX, ".gguf")))
    remedy = _CONVERT
    if any("-of-" in name for name in others):
        remedy = f"Fetch {INDEX}, which says what is in its parts."
    elif others:
        remedy = f"What is there ({others[0]}) is not what transformers loads: fetch that, or convert it."
    return ModelError(f"the folder has no {WEIGHTS}, whole or in parts.", where=str(folder), remedy=remedy)


def _check_file(name: str, path: Path, folder: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        size = path.stat().st_size
    except OSError as error:
        raise ModelError(f"the file cannot be read: {error.strerror}.", where=str(folder / name)) from error
    if start.startswith(_PICKLE_STARTS) or start == _ARCHIVE_START:
        raise _pickle(folder / name, is_whole=False)
    if size > MAX_FILE_BYTES and not name.endswith(_WEIGHTS_SUFFIX):
        raise ModelError(f"this file has more than {MAX_FILE_BYTES} bytes.", where=str(folder / name))


def _tensors(files: Mapping[str, Path], folder: Path) -> dict[str, Tensor]:
    """What all weights hold. A name in two files would be whichever is read last."""
    found: dict[str, Tensor] = {}
    for name, path in files.items():
        if not name.endswith(_WEIGHTS_SUFFIX):
            continue
        header = read_header(path, folder / name)
        if twice := min(found.keys() & header.keys(), default=None):
            raise ModelError(
                f"the tensor {twice[:80]!r} is in another file of this folder too.",
                where=str(folder / name),
                remedy="Fetch or convert the model again.",
            )
        found |= header
        if len(found) > MAX_TENSORS:
            raise ModelError(f"the files name more than {MAX_TENSORS} tensors.", where=str(folder))
    if quantized := next(filter(is_quantized, found), None):
        raise _quantized(f"{folder} {quantized[:80]}")
    return found


def _check_record(path: Path | None, where: Path, kind: type[msgspec.Struct]) -> None:
    if path is None:
        return
    try:
        msgspec.json.decode(read_bounded(path, where), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(
            f"this is no valid {kind.__name__}: {error}.",
            where=str(where),
            remedy="Delete it, or write it again.",
        ) from error
