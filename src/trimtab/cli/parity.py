"""`trimtab parity`: the same training under several layouts, compared with one process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli.console import say, table
from trimtab.cli.output import emit_json
from trimtab.spec.errors import EXIT_FAILED, UsageError

if TYPE_CHECKING:
    from trimtab.training.parity.job import Case, ParityJob, ParityResult


def parity(
    layouts: Annotated[list[str], typer.Argument(help="Layouts, such as data=2 tensor=2 data=2,pipeline=2.")],
    model: Annotated[
        str,
        typer.Option(
            help="tiny, tiny-untied (decoders), tiny-fill-mask, tiny-text-classification, tiny-image-classification "
            "(all made here), or a decoder's folder."
        ),
    ] = "tiny",
    steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Training steps; before resuming, if asked.")
    ] = 5,
    dtype: Annotated[str, typer.Option(help="float64, or float32 with a wider tolerance.")] = "float64",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Save under each layout, go on under each: states and three more steps."
        ),
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="Samples a step.")] = 8,
    sequence_length: Annotated[int, typer.Option(min=2, help="Tokens a sequence.")] = 16,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a few steps under each layout and show that losses and weights are those of one process.

    In float64 they must agree to 1e-12, weights beyond what rounding of a gradient by 1e-15 moves them through Adam.
    Names the first step, layer and parameter that differ. Exit code 1 if any differs.
    """
    from trimtab.spec.layout import parse_layout
    from trimtab.training.parity.job import TOLERANCES, ParityJob

    if dtype not in TOLERANCES:
        raise UsageError(
            f"{dtype} is not compared.", where="--dtype", remedy=f"Use {' or '.join(TOLERANCES)}."
        )
    job = ParityJob(
        layouts=tuple(parse_layout(text) for text in layouts),
        model=model,
        steps=steps,
        dtype=dtype,  # pyrefly: ignore[bad-argument-type]
        batch=batch,
        sequence_length=sequence_length,
        seed=seed,
        resume=resume,
    )
    result = _run(job)
    if as_json:
        emit_json(result)
    else:
        _show(result)
    if not result.equal:
        raise typer.Exit(EXIT_FAILED)


def _run(job: ParityJob) -> ParityResult:
    """In as many rank processes as the largest layout has."""
    import tempfile

    import msgspec

    from trimtab.parallel.launching.launch import launch
    from trimtab.training.parity.job import Case, ParityResult

    largest = max(job.layouts, key=lambda layout: layout.world)

    def tell(event: dict[str, Any]) -> None:
        say(_sentence(msgspec.convert(event["case"], Case)))

    with (
        tempfile.TemporaryDirectory(prefix="trimtab-parity-") as scratch,
        launch(largest, threads=1) as group,
    ):
        wanted = msgspec.structs.replace(job, scratch=scratch)
        return msgspec.convert(group.run("parity", msgspec.to_builtins(wanted), tell), ParityResult)


def _sentence(case: Case) -> str:
    if case.refused:
        return f"{case.layout}: refused. {case.refused}"
    verdict = "equal" if case.equal else "NOT equal"
    text = f"{case.layout}: {verdict}, losses differ by {case.max_abs_loss_difference:.1e} at most"
    first = case.first_difference
    if first is None:
        return text
    return f"{text}; first at step {first.step}, {first.parameter or 'the loss'}, by {first.difference:.1e}"


def _show(result: ParityResult) -> None:
    rows = [
        [
            case.layout,
            f"{case.max_abs_loss_difference:.1e}",
            f"{case.max_abs_parameter_difference:.1e}",
            f"{case.unexplained_parameter_difference:.1e}",
            "refused" if case.refused else "yes" if case.equal else "no",
        ]
        for case in result.cases
    ]
    title = (
        f"{result.model}, {result.dtype}, {result.steps} steps; tolerance {result.tolerance:g} to one process"
    )
    table(title, ["layout", "loss difference", "parameter difference", "not of rounding", "equal"], rows)
