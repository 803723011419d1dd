"""What `trimtab parity` asks of a group of ranks and what it answers. No torch.

Every layout trains the same steps from the same weights and data as one process alone does, and is compared with it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from trimtab.spec.layout import Layout

# What one layout may differ by from another, which sums in another order: a lost sum costs 1e-3 and more.
TOLERANCES = {"float64": 1e-12, "float32": 1e-4}


# What rounding may change of a gradient, as a part of the tolerance. Weights are judged beyond what that can do.
_ROUNDING = 0.001


class ParityJob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model` is one of `tiny.MODELS`, such as `tiny` or `tiny-fill-mask`, or a decoder's folder. `resume`:
    after `steps` steps under one layout a checkpoint is taken up under another, for every pair of layouts, and
    `steps_after` more are compared.

    `batch` samples make a step, sequences of `sequence_length` tokens at most; the folder `scratch` holds checkpoints.
    """

    layouts: tuple[Layout, ...]
    model: str = "tiny"
    steps: int = 5
    dtype: Literal["float64", "float32"] = "float64"
    batch: int = 8
    sequence_length: int = 16
    seed: int = 0
    resume: bool = False
    steps_after: int = 3
    scratch: str | None = None

    @property
    def tolerance(self) -> float:
        return TOLERANCES[self.dtype]

    @property
    def rounding(self) -> float:
        return _ROUNDING * self.tolerance


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first that is beyond the tolerance, steps first and then parameters in the model's order.

    `layer` and `parameter` are None where only the loss differs.
    """

    step: int
    layer: str | None
    parameter: str | None
    difference: float


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One layout (or `A -> B`) against one process. Differences are absolute, of losses in nats.

    Adam divides by a gradient's size, so where that is next to nothing, weights differ by more than the gradients did:
    `unexplained_parameter_difference` is what is left of a difference beyond what rounding of gradients explains, and
    what is judged.

    After resuming, also the optimizer's moments as read back, and whether random states and the place in
    the data were those at which the checkpoint was taken (None: not compared).
    """

    layout: str
    max_abs_loss_difference: float
    max_abs_parameter_difference: float
    unexplained_parameter_difference: float
    equal: bool
    first_difference: Difference | None = None
    max_abs_moment_difference: float | None = None
    random_state_equal: bool | None = None
    data_position_equal: bool | None = None
    refused: str | None = None


class ParityResult(msgspec.Struct, frozen=True, kw_only=True):
    """`tolerance` holds for losses, moments, and what rounding does not explain of parameters."""

    model: str
    dtype: str
    steps: int
    tolerance: float
    cases: tuple[Case, ...]

    @property
    def equal(self) -> bool:
        return all(case.equal for case in self.cases)
