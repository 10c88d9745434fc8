"""Classes are the same if their ids and their names are: equal numbers mean nothing by themselves."""

from collections.abc import Sequence
from typing import NamedTuple
from unicodedata import normalize

from pipeline.core.errors import TeacherError, short_repr

KnownClass = tuple[int | None, str]
"""Id, if it is known, and name of a detector's class."""


class Category(NamedTuple):
    """A COCO category, in JSON ``[id, name]``; its ``label`` is its place in the order of ids."""

    category_id: int
    name: str

    def __str__(self) -> str:
        return f"{short_repr(self.name)} (id {self.category_id})"

    def is_known_as(self, known: KnownClass) -> bool:
        """Whether the id, if it is known, and the name are the same; accents may be spelled otherwise."""
        number, name = known
        return number in (None, self.category_id) and normalize("NFC", name) == normalize("NFC", self.name)


def class_names(categories: Sequence[Category]) -> list[str]:
    """A name of its own for each, by label: where several have the same, the id stands behind it."""
    names = [category.name for category in categories]
    return [
        category.name if names.count(category.name) == 1 else f"{category.name} ({category.category_id})"
        for category in categories
    ]


def ids_difference(expected: Sequence[Category], got: Sequence[KnownClass]) -> str | None:
    """The first class that is not the same in words of an error; None if all are, in the same order."""
    for wanted, other in zip(expected, got, strict=False):
        if not wanted.is_known_as(other):
            return f"expected class {wanted}, but got {short_repr(other[1])} (id {other[0]})"
    return None if len(expected) == len(got) else f"expected {len(expected)} classes, but got {len(got)}"


def class_columns(known: Sequence[KnownClass], categories: Sequence[Category], where: str) -> list[int]:
    """A detector's channel for each category; a ``TeacherError`` names ``where`` one is missing or twice."""
    columns = []
    for category in categories:
        alike = [column for column, name in enumerate(known) if category.is_known_as(name)]
        if len(alike) != 1:
            names = short_repr([name if number is None else [number, name] for number, name in known])
            raise TeacherError(f"{where}: expected one class {category} as in the dataset, but got {names}")
        columns += alike
    return columns
