"""What a store was made from, and whether that is what its reader needs."""

from collections.abc import Mapping
from typing import Any

from pipeline.core.digest import canonical_json
from pipeline.core.errors import CacheError

ABSENT = "(absent)"


def first_difference(stored: Any, needed: Any, path: str = "") -> tuple[str, str, str] | None:
    """The first field, in alphabetical order, where ``stored`` is not what is ``needed``.

    Fields that only ``stored`` has are nobody's need and are passed over.

    Returns:
        The field's dotted path, the stored and the needed value as JSON; ``None`` if nothing differs.
    """
    if isinstance(stored, Mapping) and isinstance(needed, Mapping):
        for name in sorted(needed):
            inner = f"{path}.{name}" if path else name
            if name not in stored:
                return inner, ABSENT, canonical_json(needed[name]).decode()
            found = first_difference(stored[name], needed[name], inner)
            if found:
                return found
        return None
    left, right = canonical_json(stored).decode(), canonical_json(needed).decode()
    return None if left == right else (path, left, right)


def diff(stored: Any, made: Any) -> tuple[str, str, str] | None:
    """As :func:`first_difference`, but a field that only ``stored`` has is a difference, too."""
    found = first_difference(stored, made)
    if found:
        return found
    swapped = first_difference(made, stored)
    return swapped and (swapped[0], swapped[2], swapped[1])


def require(stored: Mapping[str, Any], needed: Mapping[str, Any]) -> None:
    """Refuse a store that was made from something else than its reader needs.

    Raises:
        CacheError: Names the first differing field by its dotted path, and both values.
    """
    _require_none(first_difference(stored, needed))


def check_equal(stored: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Refuse a store that would not be made again from what is here.

    Raises:
        CacheError: As :func:`require`.
    """
    _require_none(diff(stored, made))


def _require_none(found: tuple[str, str, str] | None) -> None:
    if found:
        path, left, right = found
        raise CacheError(
            f"the store was made from something else: {path} is {left} in the store, but {right} is needed; "
            "run `dvc repro cache_teacher` to make a matching store, or change the parameter back"
        )
