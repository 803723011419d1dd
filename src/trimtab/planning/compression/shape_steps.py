"""How an engine's step, a model's bytes and its memory change with its shape, from a few measured shapes. Pure.

Every quantity y (the step at each level, seconds per prompt token and per token of context, parameters, bytes) is

    y(L, f, k) = e + L (c + a f / f0 + b k / k0)

for L layers, FFN width f, k KV heads; e is the engine's own, the embedding's and the head's. Four shapes settle
it: the whole model (L0, f0, k0), one with fewer layers, one with a narrower FFN, one with fewer KV heads. For the
counts it is exact. A weight format multiplies y by what it did to the whole model.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trimtab.planning.serving.engine_steps import EngineSteps, engine_steps
from trimtab.spec.engine_profile import CompressionProfile, ShapeProfile
from trimtab.spec.errors import UsageError
from trimtab.spec.serving import WeightFormat

_DIMENSIONS = ("layers", "ffn", "kv_heads")
Quantity = Callable[[ShapeProfile], float]


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """A shape in a weight format."""

    layers: int
    ffn: int
    kv_heads: int
    weight_format: WeightFormat


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """Of one shape and format: steps of one worker, counts, and the service's memory."""

    steps: EngineSteps
    parameters: int
    weights_bytes: int
    memory_bytes: int


class ShapeModel:
    """Raises `UsageError` where a shape or format that it needs was not measured."""

    def __init__(self, profile: CompressionProfile) -> None:
        self._whole, *others = profile.shapes
        self._steps = {id(row): engine_steps(row.profile) for row in profile.shapes}
        self._levels = self._steps[id(self._whole)].running
        whole = self._whole
        self._formats = {_format(row): row for row in profile.shapes if _same_shape(row, whole)}
        same = [row for row in others if _format(row) == _format(whole)]
        self._cut = {
            name: next((row for row in same if getattr(row, name) < getattr(whole, name)), None)
            for name in _DIMENSIONS
        }

    @property
    def whole(self) -> Sizes:
        row = self._whole
        return Sizes(layers=row.layers, ffn=row.ffn, kv_heads=row.kv_heads, weight_format=_format(row))

    def predict(self, sizes: Sizes) -> Predicted:
        steps = self._steps

        def of(quantity: Quantity) -> float:
            return self._value(quantity, sizes)

        seconds = [of(lambda row, n=n: steps[id(row)].alone(n)) for n in self._levels]
        return Predicted(
            steps=msgspec.structs.replace(
                steps[id(self._whole)],
                seconds=tuple(max(seconds[: place + 1]) for place in range(len(seconds))),
                context_seconds=of(lambda row: steps[id(row)].context_seconds),
                prompt_seconds=of(lambda row: steps[id(row)].prompt_seconds),
                request_seconds=of(lambda row: steps[id(row)].request_seconds),
                change_seconds=of(lambda row: steps[id(row)].change_seconds),
            ),
            parameters=round(self._shape_value(lambda row: row.profile.parameters, sizes)),
            weights_bytes=round(of(lambda row: row.profile.weights_bytes)),
            memory_bytes=round(of(lambda row: row.profile.memory_bytes)),
        )

    def _value(self, quantity: Quantity, sizes: Sizes) -> float:
        if sizes.weight_format not in self._formats:
            raise UsageError(
                f"{sizes.weight_format} was not measured.",
                where="weight_format",
                remedy=f"Measured: {', '.join(self._formats)}. Add --measure for the others.",
            )
        base = quantity(self._whole)
        factor = quantity(self._formats[sizes.weight_format]) / base if base else 1.0
        return factor * self._shape_value(quantity, sizes)

    def _shape_value(self, quantity: Quantity, sizes: Sizes) -> float:
        """The formula of the module. Noise must not make a part negative: each is held between 0 and its whole."""
        whole, base = self._whole, quantity(self._whole)
        layer = min(self._saved(quantity, "layers", sizes), base / whole.layers)
        ffn = min(self._saved(quantity, "ffn", sizes) * whole.ffn / whole.layers, layer)
        kv = min(self._saved(quantity, "kv_heads", sizes) * whole.kv_heads / whole.layers, layer - ffn)
        thinner = ffn * (1 - sizes.ffn / whole.ffn) + kv * (1 - sizes.kv_heads / whole.kv_heads)
        return base - (whole.layers - sizes.layers) * layer - sizes.layers * thinner

    def _saved(self, quantity: Quantity, name: str, sizes: Sizes) -> float:
        """What one unit less of a dimension saves."""
        whole, row = self._whole, self._cut[name]
        if row is None:
            if name == "layers" or getattr(sizes, name) < getattr(whole, name):
                raise UsageError(
                    f"no shape with fewer {name} was measured.", where=name, remedy="Add --measure."
                )
            return 0.0
        saved = quantity(whole) - quantity(row)
        return max(saved, 0.0) / (getattr(whole, name) - getattr(row, name))


def _format(row: ShapeProfile) -> WeightFormat:
    return row.profile.serving.weight_format


def _same_shape(row: ShapeProfile, other: ShapeProfile) -> bool:
    return all(getattr(row, name) == getattr(other, name) for name in _DIMENSIONS)
