"""What a store was made from, and whether that is what its reader needs."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.digest import canonical_json
from pipeline.core.errors import CacheError

ABSENT = "(absent)"

Difference = tuple[str, str, str]
"""A field's dotted path, and its two values as JSON."""


def diff(stored: Any, needed: Any) -> Difference | None:
    """The first field, in alphabetical order, where two documents differ; ``None`` if they are equal."""
    swapped = _first_lack(needed, stored, "")
    return _first_lack(stored, needed, "") or (swapped and (swapped[0], swapped[2], swapped[1]))


def check_compatible(stored: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    """Refuse a store that was made from something else than its reader needs.

    Fields that only ``stored`` has do not concern the reader and are passed over.

    Raises:
        CacheError: Names the first differing field by its dotted path, and both values.
    """
    _require_none(_first_lack(stored, needed, ""))


def check_equal(stored: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Refuse a store that would not be made again from what is here.

    Raises:
        CacheError: As :func:`check_compatible`.
    """
    _require_none(diff(stored, made))


def _first_lack(stored: Any, needed: Any, path: str) -> Difference | None:
    """The first field of ``needed`` that ``stored`` has otherwise or not at all."""
    if isinstance(stored, Mapping) and isinstance(needed, Mapping):
        for name in sorted(needed):
            inner = f"{path}.{name}" if path else name
            if name not in stored:
                return inner, ABSENT, canonical_json(needed[name]).decode()
            lack = _first_lack(stored[name], needed[name], inner)
            if lack:
                return lack
        return None
    left, right = canonical_json(stored).decode(), canonical_json(needed).decode()
    return None if left == right else (path, left, right)


def _require_none(difference: Difference | None) -> None:
    if difference:
        path, left, right = difference
        raise CacheError(
            f"the store was made from something else: {path} is {left} in the store, but {right} is needed; "
            "run `dvc repro cache_teacher` to make a matching store, or change the parameter back"
        )
