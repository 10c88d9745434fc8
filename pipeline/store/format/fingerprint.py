"""What a store was made from, and whether that is what its reader needs."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.errors import CacheError
from pipeline.core.files import canonical_json

ABSENT = "(absent)"
Difference = tuple[str, str, str]
"""A field's dotted path, and its two values as JSON."""


def diff(stored: Any, needed: Any, *, only_needed: bool = False, path: str = "") -> Difference | None:
    """The first field, in alphabetical order, where two documents differ; ``None`` if they are equal.

    Fields that only ``stored`` has are passed over if ``only_needed``.
    """
    if isinstance(stored, Mapping) and isinstance(needed, Mapping):
        for name in sorted(needed.keys() if only_needed else stored.keys() | needed.keys()):
            inner = f"{path}.{name}" if path else name
            values = stored.get(name, ABSENT), needed.get(name, ABSENT)
            if difference := diff(*values, only_needed=only_needed, path=inner):
                return difference
        return None
    left, right = (v if v is ABSENT else canonical_json(v).decode() for v in (stored, needed))
    return None if left == right else (path, left, right)


def check_compatible(stored: Mapping[str, Any], needed: Mapping[str, Any], *, exactly: bool = False) -> None:
    """Refuse a store that was made from something else than its reader needs, by a ``CacheError``.

    Fields that only ``stored`` has do not concern the reader, unless it is to be made again ``exactly``.
    """
    if difference := diff(stored, needed, only_needed=not exactly):
        path, left, right = difference
        raise CacheError(
            f"the store was made from something else: {path} is {left} in the store, but {right} is needed; "
            "run `dvc repro cache_teacher` to make a matching store, or change the parameter back"
        )
