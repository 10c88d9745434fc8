"""Classes are the same if their ids and their names are: equal numbers mean nothing by themselves."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from unicodedata import normalize

import msgspec

from pipeline.core.errors import short_repr


class Category(NamedTuple):
    """A COCO category, in JSON ``[id, name]``; its ``label`` is its place in the order of ids."""

    category_id: int
    name: str


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
            wanted_text, text = (
                f"{short_repr(each.name)} (id {each.category_id})" for each in (wanted, other)
            )
            return f"expected class {texts[0]}, but got {texts[1]}"
    return None if len(expected) == len(got) else f"expected {len(expected)} classes, but got {len(got)}"


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
