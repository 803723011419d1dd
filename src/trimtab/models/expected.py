"""The tensors that a decoder of given dimensions is made of, held against those that its files hold.

Whatever a config claims is bounded here by what the files hold, before anything of that size is built. Names
count as stock transformers reads them: with or without the base model's prefix. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from trimtab.models.families import Family
from trimtab.spec.artifact import CONFIG
from trimtab.spec.errors import ModelError
from trimtab.store.safetensors_header import Tensor
from trimtab.store.tensor_names import is_constant

_FLOATS = frozenset({"F64", "F32", "BF16", "F16"})
_PIECE = 1 << 20
# What wrappers put before every name, and what to do about it.
_WRAPPED = {
    "_orig_mod.": "They were saved from a compiled model: save the model inside it.",
    "module.": "They were saved from a distributed wrapper: save the model inside it.",
    "base_model.model.": "They were saved with an adapter: merge it first (peft: merge_and_unload).",
}


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What files hold of a decoder. `tied`: head and embedding are one, as stock transformers would load them."""

    parameters: int
    weights_bytes: int
    tied: bool


def hold_against(
    tensors: Mapping[str, Tensor],
    known: Family,
    sizes: Mapping[str, int],
    config: Mapping[str, Any],
    *,
    tied: bool,
    folder: Path,
) -> Held:
    """Raises `ModelError` that names a tensor which is missing, of another shape, of another kind, or surplus."""
    _check_layers(tensors, known, sizes["layers"], folder)
    expected = dict(_expected(known, sizes, config))
    found = _by_stock_name(tensors, known, expected, folder)
    if surplus := sorted(name for name in found.keys() - expected.keys() if not is_constant(name)):
        remedy = next((remedy for start, remedy in _WRAPPED.items() if surplus[0].startswith(start)), None)
        raise ModelError(
            f"the weights hold {_few(surplus)}, for which a {known.name} of this config has no place.",
            where=str(folder),
            remedy=remedy or f"Use the {CONFIG} that belongs to the weights.",
        )
    absent = expected.keys() - found.keys()
    # Of two that are one, one is enough, whichever.
    if tied and not {known.head, known.embedding} <= absent:
        absent -= {known.head, known.embedding}
    if absent:
        raise ModelError(
            f"the weights lack {_few(sorted(absent))}, which {CONFIG} asks for.",
            where=str(folder),
            remedy="Write tie_word_embeddings: true if head and embedding are one, or give all weights."
            if absent == {known.head}
            else f"Fetch the files again, or use the {CONFIG} that belongs to them.",
        )
    for name, shape in expected.items():
        if name in found:
            _check_tensor(name, found[name], shape, folder)
    tied = tied and _is_same(found.get(known.head), found.get(known.embedding))
    counted = [found[name] for name in expected.keys() & found.keys() if not (tied and name == known.head)]
    if tied and known.embedding not in found:
        counted.append(found[known.head])
    return Held(
        parameters=sum(tensor.elements for tensor in counted),
        weights_bytes=sum(tensor.bytes for tensor in counted),
        tied=tied,
    )


def _check_layers(tensors: Mapping[str, Tensor], known: Family, layers: int, folder: Path) -> None:
    stack = known.layers.removeprefix(f"{known.base}.")
    numbered = re.compile(rf"(?:{re.escape(known.base)}\.)?{re.escape(stack)}\.(\d{{1,9}})\.")
    held = max((int(found[1]) + 1 for name in tensors if (found := numbered.match(name))), default=0)
    if held != layers and held:
        raise ModelError(
            f"{known.keys.layers} is {layers}, and the weights hold {held} layers.",
            where=str(folder / CONFIG),
            remedy=f"Use the {CONFIG} that belongs to the weights, or fetch what is missing of them.",
        )
    if layers > len(tensors):
        raise ModelError(
            f"{known.keys.layers} is {layers}, and the weights hold {len(tensors)} tensors, none of a layer "
            f"as a {known.name} names them.",
            where=str(folder / CONFIG),
            remedy=f"Use the {CONFIG} that belongs to the weights.",
        )


def _expected(
    known: Family, sizes: Mapping[str, int], config: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = sizes["hidden"]
    named = dict(sizes) | {
        "queries": sizes["heads"] * sizes["head_dim"],
        "keys": sizes["kv_heads"] * sizes["head_dim"],
        "three_hidden": 3 * hidden,
    }
    layer = dict(known.layer_tensors)
    for key, biases in known.layer_biases.items():
        layer |= biases if config.get(key) else {}
    shapes = {name: tuple(named[size] for size in axes) for name, axes in layer.items()}
    for index in range(sizes["layers"]):
        for name, shape in shapes.items():
            yield f"{known.layer(index)}.{name}", shape
    yield known.embedding, (sizes["vocabulary"], hidden)
    yield known.head, (sizes["vocabulary"], hidden)
    yield f"{known.final_norm}.weight", (hidden,)
    if known.positions:
        yield f"{known.positions}.weight", (sizes["context"], hidden)
        yield f"{known.final_norm}.bias", (hidden,)


def _by_stock_name(
    tensors: Mapping[str, Tensor], known: Family, expected: Mapping[str, object], folder: Path
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        other = (
            f"{known.base}.{name}" if not name.startswith(f"{known.base}.") else name[len(known.base) + 1 :]
        )
        stock = other if name not in expected and other in expected else name
        if stock in found:
            raise ModelError(f"the weights hold {stock!r} twice, under two names.", where=str(folder))
        found[stock] = tensor
    return found


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], folder: Path) -> None:
    if tensor.dtype not in _FLOATS:
        raise ModelError(
            f"the weights are quantized already: {name} is stored as {tensor.dtype}.",
            where=str(folder),
            remedy="Give the unquantized model.",
        )
    if tensor.shape != shape:
        raise ModelError(
            f"{name} is {_times(tensor.shape)} in the weights, and {CONFIG} makes it {_times(shape)}.",
            where=str(folder / CONFIG),
            remedy=f"Use the {CONFIG} that belongs to the weights.",
        )


def _is_same(head: Tensor | None, embedding: Tensor | None) -> bool:
    """Whether a tied head that is stored all the same is the embedding; stock keeps two weights where it is not."""
    if head is None or embedding is None:
        return True
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        return False
    with head.file.open("rb") as one, embedding.file.open("rb") as two:
        one.seek(head.begin)
        two.seek(embedding.begin)
        left = head.bytes
        while left > 0:
            piece = one.read(min(_PIECE, left))
            if not piece or piece != two.read(len(piece)):
                return False
            left -= len(piece)
    return True


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0][:80]}{more}"


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a single number"
