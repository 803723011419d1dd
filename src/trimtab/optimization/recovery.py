"""Winning quality back: distil the finalists, and give the baseline the same extra tokens as a control.

The control is trained first and, where it is the better model, is the teacher: a student can only become as good
as what it learns from (teacher correction, Minitron in practice, arXiv 2408.11796). Control and students see the
same stretch of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from trimtab.models.create import create_like
from trimtab.optimization.baseline import Baseline
from trimtab.optimization.shaping import Shaped
from trimtab.optimization.training import TRAINED_ALREADY, Schedule, Trainer, Training
from trimtab.optimization.workspace import Workspace
from trimtab.spec.progress import OnEvent
from trimtab.spec.recipe import Recipe
from trimtab.spec.units import format_count

# What measuring, proving and publishing take after training on a small machine; kept out of the training budget.
RESERVE_SECONDS = 180.0
# A teacher's forward pass against a whole training step of it (one part forward, two backward).
FORWARD_SHARE = 1 / 3
# Share of cross-entropy in the loss: with text beside the teacher, a student may pass a teacher that is not done.
CROSS_ENTROPY_WEIGHT = 0.5
FEWEST_STEPS = 20
# Of those tried, best for a cut model under a teacher (docs/log.md).
STUDENT_SCHEDULE = Schedule(matrices=0.8, embeddings=0.25, decay=1.0)
SCRATCH_SEED = 1


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """A distilled finalist, and the words for its passport."""

    name: str
    folder: str
    trained: Training
    steps: tuple[str, ...]

    @property
    def path(self) -> Path:
        return Path(self.folder)


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """`from_scratch` is the first finalist's shape trained from nothing with the same total compute."""

    control: Recovered
    students: tuple[Recovered, ...]
    from_scratch: Recovered | None = None


def affordable_tokens(
    seconds: float, rate: float, relative_costs: Sequence[float], *, most: int, fewest: int
) -> int:
    """Tokens of extra training for a control and each student that `seconds` allow. Pure.

    `rate` is the baseline's training tokens/s. A student's token costs its own training and the teacher's forward
    pass, in units of the baseline's.
    """
    cost = (1 + sum(FORWARD_SHARE + relative for relative in relative_costs)) / rate
    return max(fewest, min(most, int(seconds / cost)))


def extra_tokens(
    recipe: Recipe,
    workspace: Workspace,
    baseline: Baseline,
    finalists: Sequence[Shaped],
    trainer: Trainer,
) -> int:
    """The recipe's number, or what is left of the time budget; fixed once for the run."""
    if recipe.search.distill_tokens != "auto":
        return recipe.search.distill_tokens

    def allow() -> int:
        trained = baseline.trained or trainer.measure(baseline.path).rate
        rate = trained.tokens_per_second
        left = recipe.budget.time - workspace.seconds - RESERVE_SECONDS
        batch = recipe.training.batch * recipe.training.sequence_length
        known = baseline.trained.tokens if baseline.trained else 1 << 40
        costs = [finalist.relative_cost for finalist in finalists]
        return affordable_tokens(left, rate, costs, most=known, fewest=FEWEST_STEPS * batch)

    return workspace.step("extra-tokens", int, allow)


def recover(
    workspace: Workspace,
    baseline: Baseline,
    finalists: Sequence[Shaped],
    trainer: Trainer,
    tokens: int,
    on_event: OnEvent,
) -> Recovery:
    """Control, then every finalist, in the same processes; each a step that an interrupted run keeps."""
    start = baseline.trained.next_sequence if baseline.trained else 0
    models = workspace.folder / "models"

    def control() -> Recovered:
        output = models / "control"
        job = trainer.job(baseline.path, output, tokens, start_sequence=start, schedule=TRAINED_ALREADY)
        trained = trainer.train("control", job, on_event)
        words = (f"trained on for {format_count(trained.tokens)} tokens",)
        return Recovered(name="control", folder=str(output), trained=trained, steps=words)

    controlled = workspace.step("control", Recovered, control)
    teacher = controlled.path if _has_improved(baseline, controlled) else baseline.path

    def distil(finalist: Shaped) -> Recovered:
        name = f"{finalist.name}-distilled"
        job = trainer.job(
            finalist.path,
            models / name,
            tokens,
            start_sequence=start,
            teacher=teacher,
            cross_entropy_weight=CROSS_ENTROPY_WEIGHT,
            schedule=STUDENT_SCHEDULE,
        )
        trained = trainer.train(f"distil {finalist.name}", job, on_event)
        source = "control" if teacher == controlled.path else "baseline"
        words = (
            *finalist.report.steps,
            f"distilled from the {source} for {format_count(trained.tokens)} tokens",
        )
        return Recovered(name=finalist.name, folder=str(models / name), trained=trained, steps=words)

    students = tuple(
        workspace.step(f"distil-{finalist.name}", Recovered, lambda finalist=finalist: distil(finalist))
        for finalist in finalists
    )
    return Recovery(control=controlled, students=students)


def _has_improved(baseline: Baseline, control: Recovered) -> bool:
    """Whether the control ended below where the baseline ended, on the same held-out windows."""
    before = [
        p.validation_loss for p in (baseline.trained.curve if baseline.trained else ()) if p.validation_loss
    ]
    after = [p.validation_loss for p in control.trained.curve if p.validation_loss]
    return bool(after) and (not before or after[-1] <= before[-1])


def scratch_tokens(baseline: Baseline, finalist: Shaped, student: Training, control: Training) -> int:
    """Tokens that train the finalist's shape from nothing for the compute of its whole history. Pure.

    History: the baseline's training, the teacher's correction, the teacher's forward passes, the student's training.
    """
    first = baseline.trained.tokens if baseline.trained else 0
    spent = first + control.tokens + student.tokens * (FORWARD_SHARE + finalist.relative_cost)
    return int(spent / finalist.relative_cost)


def train_from_scratch(
    workspace: Workspace,
    baseline: Baseline,
    finalist: Shaped,
    recovery: Recovery,
    trainer: Trainer,
    on_event: OnEvent,
) -> Recovered:
    """The sceptic's row: was it worth having a large model first? The shape is as the finalist's, from new weights."""
    tokens = scratch_tokens(baseline, finalist, recovery.students[0].trained, recovery.control.trained)
    models = workspace.folder / "models"

    def train() -> Recovered:
        fresh, output = models / "scratch-untrained", models / "from-scratch"
        create_like(finalist.path, fresh, seed=SCRATCH_SEED)
        trained = trainer.train("from scratch", trainer.job(fresh, output, tokens), on_event)
        words = (f"trained from scratch for {format_count(trained.tokens)} tokens, the same total compute",)
        return Recovered(name="from-scratch", folder=str(output), trained=trained, steps=words)

    return workspace.step("from-scratch", Recovered, train)
