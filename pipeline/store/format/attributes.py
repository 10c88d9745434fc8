"""The store's root ``zarr.json``: its attributes hold everything that is not an array."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pipeline.core.errors import CacheError
from pipeline.core.files import digest, write_atomically
from pipeline.store.format.schema import require_version

ROOT_METADATA = "zarr.json"
ATTRIBUTES_SHA256 = "attributes_sha256"
"""Attribute with the digest of all others: no other file records the root's own content."""
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
        attributes["schema"]["format_version"]
        require_version(attributes["schema"])
    except CacheError as error:
        raise CacheError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError, MemoryError):
        raise CacheError(f"{path} is damaged, or not of a store of teacher outputs; {REFETCH_HINT}") from None
    # To the byte: a change around the attributes, or in how a number is written, is damage all the same.
    as_written = _encode(attributes)
    recorded = attributes.pop(ATTRIBUTES_SHA256, None)
    if content != as_written or recorded != digest(attributes):
        raise CacheError(f"{path} is damaged: its checksum differs; {REPLACE_HINT}")
    return attributes


def _encode(attributes: Mapping[str, Any]) -> bytes:
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return json.dumps(document, indent=2, allow_nan=False).encode()
