"""torch's distributed checkpoints (DCP) on safetensors and JSON: a writer and a reader. No pickle anywhere.

A checkpoint folder holds `rankN.safetensors` per rank and `metadata.json`, written by rank 0 when all of them are
on the disk: each tensor's dtype, size and chunks, which file holds each chunk, and every file's size and digest.
Only tensors are taken; plain values belong in the caller's JSON.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trimtab.spec.artifact import file_digest
from trimtab.store.durable import sync

METADATA = "metadata.json"


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A block of a tensor: where it lies in the tensor, and under which key in which file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    key: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    dtype: str
    size: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """`files`: name → (bytes, SHA-256)."""

    tensors: dict[str, Entry]
    files: dict[str, tuple[int, str]]


class SafetensorsWriter(StorageWriter):
    """Writes into `folder`, made if need be; rank 0 calls `commit` when all ranks' files and the metadata are there."""

    def __init__(self, folder: Path, rank: int, commit: Callable[[], None] | None = None) -> None:
        self._folder, self._file, self._commit = folder, f"rank{rank}.safetensors", commit

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        tensors, items = {}, []
        for number, item in enumerate(plan.items):
            tensor = planner.resolve_data(item)
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{item.index.fqn} is not a tensor")
            key = f"{number}.{item.index.fqn}"
            tensors[key] = tensor.detach().cpu().contiguous()
            size = tensor.numel() * tensor.element_size()
            items.append((item.index, size, key))
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / self._file
        save_file(tensors, path)
        sync(path)
        file = (self._file, path.stat().st_size, file_digest(path))
        results = [
            WriteResult(index=index, size_in_bytes=size, storage_data=(*file, key))
            for index, size, key in items
        ]
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        written = [(result.index, *result.storage_data) for part in results for result in part]
        places = {index: (file, key) for index, file, _, _, key in written}
        catalogue = Catalogue(
            tensors={name: _entry(name, kept, places) for name, kept in metadata.state_dict_metadata.items()},
            files={file: (size, digest) for _, file, size, digest, _ in written},
        )
        path = self._folder / METADATA
        path.write_bytes(msgspec.json.encode(catalogue))
        sync(path)
        if self._commit is not None:
            self._commit()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return Path(checkpoint_id).is_dir()


class SafetensorsReader(StorageReader):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries = msgspec.json.decode((folder / METADATA).read_bytes(), type=Catalogue).tensors

    @property
    def names(self) -> set[str]:
        return set(self._entries)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None: ...

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # noqa: ARG002 (the interface passes them)
        return Metadata(state_dict_metadata={name: _metadata(entry) for name, entry in self._entries.items()})

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            chunk = self._chunk(item.storage_index)
            block = tuple(
                slice(start, start + length)
                for start, length in zip(item.storage_offsets, item.lengths, strict=True)
            )
            with safe_open(self._folder / chunk.file, framework="pt") as file:
                stored = file.get_slice(chunk.key)[block] if block else file.get_tensor(chunk.key)
            target = planner.resolve_tensor(item).detach()
            target.copy_(stored)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _chunk(self, index: MetadataIndex) -> Chunk:
        offset = tuple(index.offset or ())
        return next(chunk for chunk in self._entries[index.fqn].chunks if chunk.offsets == offset)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return (Path(checkpoint_id) / METADATA).is_file()


def _entry(name: str, kept: Any, places: dict[MetadataIndex, tuple[str, str]]) -> Entry:
    chunks = []
    for chunk in kept.chunks:
        file, key = places[MetadataIndex(name, chunk.offsets)]
        chunks.append(Chunk(offsets=tuple(chunk.offsets), sizes=tuple(chunk.sizes), file=file, key=key))
    dtype = str(kept.properties.dtype).removeprefix("torch.")
    return Entry(dtype=dtype, size=tuple(kept.size), chunks=tuple(chunks))


def _metadata(entry: Entry) -> TensorStorageMetadata:
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=getattr(torch, entry.dtype)),
        size=torch.Size(entry.size),
        chunks=[
            ChunkStorageMetadata(offsets=torch.Size(chunk.offsets), sizes=torch.Size(chunk.sizes))
            for chunk in entry.chunks
        ],
    )
