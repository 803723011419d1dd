"""Classes: the labels that a train split has, in an order of their own, and every label as its number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab.spec.errors import DataError


def class_names(labels: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """Of a train split's labels; those of a model that has been taught them (`known`) keep its order.

    Whole numbers are ordered as such. Raises `DataError` for none, or only one.
    """
    found = set(labels)
    if not found:
        raise DataError(
            "the data has no train split: there is no sample for it.",
            where="data",
            remedy="Name a source for train, or give more samples.",
        )
    if len(found) == 1:
        raise DataError(
            f"the train split has one class alone, {labels[0]!r}.",
            where="data.train",
            remedy="Give samples of two classes or more.",
        )
    if found <= set(known):
        return tuple(known)
    numbers = all(label.removeprefix("-").isdecimal() for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else None))


def numbered(
    labels: Sequence[str], names: Sequence[str], classes: Sequence[str], split: str
) -> npt.NDArray[np.int32]:
    """The number of each label, little-endian; `names` say where a label stands.

    Raises `DataError` for a class that is none of `classes`.
    """
    number = {label: at for at, label in enumerate(classes)}
    for label, name in zip(labels, names, strict=True):
        if label not in number:
            raise DataError(
                f"the {split} split has the class {label!r}, which train has not.",
                where=name,
                remedy="Leave it out, or give train some of it.",
            )
    return np.array([number[label] for label in labels], dtype="<i4")
