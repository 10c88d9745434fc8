"""Classes are the same if their ids and their names are: equal numbers mean nothing by themselves."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from unicodedata import normalize

import msgspec

from pipeline.core.errors import TeacherError, short_repr


class Category(NamedTuple):
    """A COCO category, in JSON ``[id, name]``; its ``label`` is its place in the order of ids."""

    category_id: int
    name: str

    def __str__(self) -> str:
        return f"{short_repr(self.name)} (id {self.category_id})"


def class_names(categories: Sequence[Category]) -> list[str]:
    """A name of its own for each, by label: where several have the same, the id stands behind it."""
    names = [category.name for category in categories]
    return [
        category.name if names.count(category.name) == 1 else f"{category.name} ({category.category_id})"
        for category in categories
    ]


def ids_difference(expected: Sequence[Category], got: Sequence[Category]) -> str | None:
    """The first class that is not the same in words of an error; None if all are, in the same order."""
    for wanted, other in zip(expected, got, strict=False):
        if wanted.category_id != other.category_id or not same_name(wanted.name, other.name):
            return f"expected class {wanted}, but got {other}"
    return None if len(expected) == len(got) else f"expected {len(expected)} classes, but got {len(got)}"


def class_columns(
    known: Sequence[tuple[int | None, str]], categories: Sequence[Category], where: str
) -> list[int]:
    """A detector's channel for each of a dataset's categories.

    ``known`` are id, if it is known, and name of each of the detector's classes. A ``TeacherError`` names
    ``where`` they are described, and the first category that is not there, or twice.
    """
    columns = []
    for category in categories:
        alike = [
            column
            for column, (number, name) in enumerate(known)
            if number in (None, category.category_id) and same_name(name, category.name)
        ]
        if len(alike) != 1:
            names = short_repr([name if number is None else [number, name] for number, name in known])
            raise TeacherError(f"{where}: expected one class {category} as in the dataset, but got {names}")
        columns += alike
    return columns


def same_name(left: str, right: str) -> bool:
    """Equal but for the spelling of accents."""
    return normalize("NFC", left) == normalize("NFC", right)


def described_difference(expected: Sequence[Category], described: Any) -> str | None:
    """As :func:`ids_difference`, for the ``classes`` of a description, if it has any."""
    if described is None:
        return None
    try:
        return ids_difference(expected, msgspec.convert(described, list[Category]))
    except msgspec.ValidationError:
        return f"expected [id, name] for each, but got {short_repr(described)}"
