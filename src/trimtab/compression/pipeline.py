"""Baseline folder → smaller folder: choose, refit and cut, then say what was done, what it cost and what is left.

Everything is chosen and fitted on calibration windows; of these some are held out, and the perplexities in the
report are theirs. Training afterwards (distillation) is another room's work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.compression.shapes import FFN_MULTIPLE, Shape, check, whole
from trimtab.evaluation.windows import spread
from trimtab.models.families import FAMILIES
from trimtab.models.info import ModelInfo, inspect, stored_dtype
from trimtab.spec.errors import DataError
from trimtab.spec.units import format_count
from trimtab.store.durable import check_writable, writing_to

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from trimtab.compression.pruning.depth import DepthMeasure
    from trimtab.compression.pruning.importance import Importance
    from trimtab.compression.pruning.sequential import HalfCut

# One window in so many is held out of calibration.
_HELD_OUT_EVERY = 8
# Windows on which the order of removal is measured: the layers' losses differ by far more than the noise of these.
_DEPTH_WINDOWS = 8
# Fewer calibration tokens than this per feature leave the fit to noise (research on SparseGPT-like updates).
_TOKENS_PER_FEATURE = 4


class HalfReport(msgspec.Struct, frozen=True, kw_only=True):
    """Relative squared error of one half block's output on calibration text, without and with the refit."""

    layer: int
    half: str
    before: float
    after: float
    damping: float


class PruneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done. Perplexities are on the held-out windows: the source's and the result's.

    `steps` are words for the passport; `warnings` are sentences for a person.
    """

    shape: Shape
    halves: tuple[HalfReport, ...]
    parameters: int
    source_parameters: int
    perplexity: float
    source_perplexity: float
    calibration_tokens: int
    seconds: float
    steps: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def removal_order(
    source: Path,
    calibration: NDArray[np.integer],
    *,
    how: DepthMeasure = "auto",
    threads: int | None = None,
) -> list[int]:
    """The order in which the layers of a model go, first to go first, measured on a few of the windows."""
    import torch

    from trimtab.compression.pruning import depth
    from trimtab.compression.pruning.blocks import Blocks
    from trimtab.models.load import load

    info = inspect(source)
    windows = _check(calibration, info)[spread(len(calibration), _DEPTH_WINDOWS)]
    with _threads(threads):
        blocks = Blocks(load(source), FAMILIES[info.family], windows.shape[1])
        return list(depth.removal_order(blocks, info, torch.from_numpy(windows), how=how))


def prune(
    source: Path,
    shape: Shape,
    calibration: NDArray[np.integer],
    output: Path,
    *,
    refit: bool = True,
    importance: Importance = "elimination",
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> PruneReport:
    """Write the model in `source`, cut to `shape`, to the folder `output`, in the precision it came in.

    `calibration` (n, length) token ids: windows of text like that to be served, at least two. Raises
    `UsageError` for a shape that cannot be cut and `DataError` for windows that do not fit the model.
    """
    import torch

    from trimtab.models.load import load, save

    started = time.monotonic()
    info = inspect(source)
    check(shape, info)
    check_writable(output.parent)
    fit, held_out = _split(_check(calibration, info))
    with _threads(threads):
        model = load(source)
        smaller, cuts = _cut(
            model, info, shape, fit, refit=refit, importance=importance, on_progress=on_progress
        )
        before, after = (_perplexity(each, info, held_out) for each in (model, smaller))
        with writing_to(output):
            save(smaller.to(getattr(torch, stored_dtype(source))), output, source)  # pyrefly: ignore[bad-argument-type]
    return PruneReport(
        shape=shape,
        halves=tuple(
            HalfReport(layer=c.layer, half=c.half, before=c.before, after=c.after, damping=c.damping)
            for c in cuts
        ),
        parameters=inspect(output).parameters,
        source_parameters=info.parameters,
        perplexity=after,
        source_perplexity=before,
        calibration_tokens=fit.size,
        seconds=time.monotonic() - started,
        steps=steps(info, shape, fit.size, refit=refit, importance=importance),
        warnings=_warnings(info, shape, fit.size, cuts, refit=refit),
    )


def steps(
    info: ModelInfo, shape: Shape, tokens: int, *, refit: bool, importance: Importance
) -> tuple[str, ...]:
    """What pruning does, in words."""
    words = []
    if len(shape.layers) < info.layers:
        words.append(f"kept layers {', '.join(map(str, shape.layers))} of {info.layers}")
    if shape.ffn < info.ffn:
        words.append(f"cut the FFN from {info.ffn} to {shape.ffn} neurons by {importance}")
    if shape.kv_heads < info.kv_heads:
        words.append(f"cut KV heads from {info.kv_heads} to {shape.kv_heads} by {importance}")
    if refit and shape != whole(info):
        words.append(f"refitted output matrices by least squares on {format_count(tokens)} tokens")
    return tuple(words)


def _cut(
    model: PreTrainedModel,
    info: ModelInfo,
    shape: Shape,
    windows: NDArray[np.int64],
    *,
    refit: bool,
    importance: Importance,
    on_progress: Callable[[float], None] | None,
) -> tuple[PreTrainedModel, list[HalfCut]]:
    import torch

    from trimtab.compression.pruning.blocks import Blocks
    from trimtab.compression.pruning.decoder import cut
    from trimtab.compression.pruning.sequential import Sequential

    family = FAMILIES[info.family]
    blocks = Blocks(model, family, windows.shape[1])
    passing = Sequential(blocks, info, shape, refitting=refit, how=importance)
    cuts = passing.run(torch.from_numpy(windows), on_progress)
    return cut(model, family, info, shape, cuts), cuts


def _perplexity(model: PreTrainedModel, info: ModelInfo, windows: NDArray[np.int64]) -> float:
    import torch

    from trimtab.compression.pruning.blocks import Blocks
    from trimtab.compression.pruning.depth import perplexity

    blocks = Blocks(model, FAMILIES[info.family], windows.shape[1])
    return perplexity(blocks, torch.from_numpy(windows))


def _check(calibration: NDArray[np.integer], info: ModelInfo) -> NDArray[np.int64]:
    remedy = "Give more text, encoded with the model's own tokenizer."
    if calibration.ndim != 2 or len(calibration) < 2 or calibration.shape[1] < 2:
        raise DataError("calibration needs at least two windows of text.", where="calibration", remedy=remedy)
    if calibration.shape[1] > info.context:
        raise DataError(
            f"windows of {calibration.shape[1]} tokens are longer than the model's context of {info.context}.",
            where="calibration",
        )
    if int(calibration.min()) < 0 or int(calibration.max()) >= info.vocabulary:
        raise DataError(
            f"there are token ids outside of the vocabulary of {info.vocabulary}.",
            where="calibration",
            remedy=remedy,
        )
    return np.ascontiguousarray(calibration, dtype=np.int64)


def _split(windows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows to fit on, and windows held out: one in eight, at least one."""
    held = np.zeros(len(windows), dtype=bool)
    held[spread(len(windows), max(1, len(windows) // _HELD_OUT_EVERY))] = True
    return windows[~held], windows[held]


def _warnings(
    info: ModelInfo, shape: Shape, tokens: int, cuts: list[HalfCut], *, refit: bool
) -> tuple[str, ...]:
    words = []
    if cuts and tokens < _TOKENS_PER_FEATURE * info.ffn:
        words.append(
            f"{tokens:,} calibration tokens are few for an FFN of {info.ffn} neurons; "
            f"{_TOKENS_PER_FEATURE * info.ffn:,} or more are advised."
        )
    least = min((c.damping for c in cuts), default=0.0)
    raised = [f"{c.half} of layer {c.layer}" for c in cuts if c.damping > least]
    if refit and raised:
        words.append(f"the fit had to be damped harder in: {', '.join(raised)}.")
    if shape.ffn % FFN_MULTIPLE:
        words.append(
            f"the FFN's width {shape.ffn} is no multiple of {FFN_MULTIPLE}, which engines are slow on."
        )
    return tuple(words)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Sets the number of threads for a while; None leaves it as it is."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
