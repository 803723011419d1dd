"""How many layers each rank of a pipeline has, and which parameters."""

from __future__ import annotations

from trimtab.planning.training.architecture import Architecture


def stage_layers(layers: int, pipeline: int, virtual: int) -> tuple[int, int, int] | None:
    """Layers of the first rank, of those between, and of the last; None where they do not divide.

    Either the layers divide evenly, or they do with the embedding and the head each in the place of a layer,
    as Llama 3 405B was trained (126 layers on 16 stages).
    """
    stages = pipeline * virtual
    if layers % stages == 0:
        return (layers // pipeline,) * 3
    if pipeline > 1 and (layers + 2) % stages == 0 and layers + 2 > stages:
        between = (layers + 2) // pipeline
        return between - 1, between, between - 1
    return None


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
