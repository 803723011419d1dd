"""How many layers each rank of a pipeline has, and which parameters."""

from __future__ import annotations

from trimtab.planning.training.architecture import Architecture
from trimtab.planning.training.balance import decoder_cut, stages_of_rank
from trimtab.planning.training.job import Job
from trimtab.planning.training.software import software_of
from trimtab.spec.layout import Layout


def can_split(job: Job, layout: Layout) -> bool:
    """Whether its layers fill the stages by the rule of the layout's software."""
    layers, stages = job.architecture.layers, layout.pipeline * layout.virtual
    if stages == 1:
        return True
    if software_of(job, layout) == "torch":
        # The head may be a stage of its own.
        return layers + 1 >= stages
    return published_split(layers, layout.pipeline, layout.virtual) is not None


def layers_of_ranks(job: Job, layout: Layout) -> tuple[int, ...]:
    """By rank of the pipeline. `torch` is our own training, whose very cut this is; the others as published."""
    if layout.pipeline > 1 and software_of(job, layout) == "torch":
        return trained_split(job.architecture, layout.pipeline, layout.virtual)
    split = published_split(job.architecture.layers, layout.pipeline, layout.virtual)
    if split is None:
        raise ValueError(f"{layout} was not checked with misfit")
    return split


def different_ranks(layers: tuple[int, ...]) -> list[int]:
    """Ranks of a pipeline that stand for all: its ends, and of those between with as many layers the first, which
    holds most micro-batches.
    """
    last = len(layers) - 1
    kinds = {(layers[rank], rank == 0, rank == last): rank for rank in range(last, -1, -1)}
    return sorted(kinds.values())


# What takes the place of a layer where layers alone do not divide: embedding and head, the head alone, the embedding
# alone. Megatron-LM's options `account-for-embedding-in-pipeline-split` and `account-for-loss-…` are these.
_IN_PLACE = ((0, 0), (1, 1), (0, 1), (1, 0))


def published_split(layers: int, pipeline: int, virtual: int) -> tuple[int, ...] | None:
    """None where they do not divide.

    Either the layers divide evenly, or they do with the embedding or the head or each of them in the place of a layer,
    as Llama 3 405B was trained (126 layers on 16 stages).
    """
    if pipeline == 1:
        return (layers,)
    stages = pipeline * virtual
    for embedding, head in _IN_PLACE:
        each, left = divmod(layers + embedding + head, stages)
        # No stage is left with nothing but a table.
        if left == 0 and each > max(embedding, head):
            between = each * virtual
            return between - embedding, *[between] * (pipeline - 2), between - head
    return None


def trained_split(shape: Architecture, pipeline: int, virtual: int) -> tuple[int, ...]:
    """As `parallel/strategies/stages.py` cuts a decoder."""
    stages = pipeline * virtual
    ranges = decoder_cut([shape.layer_parameters] * shape.layers, shape.embedding, stages)
    held = [sum(1 for index in part if index < shape.layers) for part in ranges]
    return tuple(sum(held[i] for i in stages_of_rank(stages, rank, pipeline)) for rank in range(pipeline))


def layer_parameters_of_rank(shape: Architecture, tensor: int) -> float:
    """Of one layer, on one of `tensor` ranks."""
    return (shape.layer_matrices + shape.layer_vectors_split) / tensor + shape.layer_vectors_whole


def table_parameters_of_rank(shape: Architecture, tensor: int, *, first: bool, last: bool) -> int:
    """Embedding, positions, final norm and head of a rank: a tied head is on the last rank once more.

    A vocabulary that does not divide leaves the first ranks a row more.
    """
    table = -(-shape.vocabulary // tensor) * shape.hidden
    tables = 0
    if first:
        tables += table + shape.position_parameters
    if last:
        tables += shape.final_norm
        if not (first and shape.tied):
            tables += table
    return tables
