"""The store's root ``zarr.json``: its attributes hold what is no array and what a store was made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.core.errors import CacheError
from pipeline.core.files import canonical_json, digest, write_atomically
from pipeline.store.format.schema import READABLE_VERSIONS

ROOT_METADATA = "zarr.json"
ABSENT = "(absent)"
ATTRIBUTES_SHA256 = "attributes_sha256"  # of all others: no other file records the root's own content
REFETCH_HINT = "fetch it with `dvc pull`, or make it with `dvc repro cache_teacher`"
REPAIR_HINT = "`ldp store repair` makes it again"
REPLACE_HINT = (
    "remove it and DVC's copy of the damage (`find -L .dvc/cache -samefile FILE -delete; rm -f FILE`), then "
    "fetch it with `dvc pull`"
)
"""DVC trusts a read-only object of its cache: neither pull nor repro replaces a damaged one."""


def write_attributes(store: Path, attributes: Mapping[str, Any]) -> None:
    """Write the root group's metadata, with a digest of ``attributes``."""
    write_atomically(store / ROOT_METADATA, _encode({**attributes, ATTRIBUTES_SHA256: digest(attributes)}))


def read_attributes(store: Path) -> dict[str, Any]:
    """The attributes of a store, finished or not; a ``CacheError`` if none of this version is there whole."""
    path = store / ROOT_METADATA
    if not path.is_file():
        raise CacheError(f"expected a store at {store}, but it has no {ROOT_METADATA}; {REFETCH_HINT}")
    content = path.read_bytes()
    try:
        attributes: dict[str, Any] = msgspec.json.decode(content)["attributes"]
        version = attributes["schema"]["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError):
        raise CacheError(f"{path} is damaged, or not of a store of teacher outputs; {REFETCH_HINT}") from None
    if version not in READABLE_VERSIONS:
        raise CacheError(
            f"{path}: expected a store of format_version {' or '.join(map(str, READABLE_VERSIONS))}, but got "
            f"{version!r}; update this code if that is newer, or make the store again: "
            "`dvc repro -f cache_teacher`"
        )
    # To the byte: a change around the attributes, or in how a number is written, is damage all the same.
    as_written = _encode(attributes)
    recorded = attributes.pop(ATTRIBUTES_SHA256, None)
    if content != as_written or recorded != digest(attributes):
        raise CacheError(f"{path} is damaged: its checksum differs; {REPLACE_HINT}")
    return attributes


def _encode(attributes: Mapping[str, Any]) -> bytes:
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(document, indent=2, allow_nan=False).encode()


def diff(
    stored: Any, needed: Any, *, only_needed: bool = False, path: str = ""
) -> tuple[str, str, str] | None:
    """The first field, by the alphabet, where two documents differ: its dotted path, and both values as JSON.

    ``None`` if they are equal. Fields that only ``stored`` has are passed over if ``only_needed``.
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
    """Refuse a fingerprint of something else than a store's reader needs, by a ``CacheError``.

    Fields that only ``stored`` has do not concern the reader, unless it is to be made again ``exactly``.
    """
    if difference := diff(stored, needed, only_needed=not exactly):
        path, left, right = difference
        raise CacheError(
            f"the store was made from something else: {path} is {left} in the store, but {right} is needed; "
            "run `dvc repro cache_teacher` to make a matching store, or change the parameter back"
        )
