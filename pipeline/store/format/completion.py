"""Completion records: what a partition's writer leaves last, and so what proves that it finished."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import msgspec

from pipeline.core.files import FileDigest, write_atomically

logger = logging.getLogger(__name__)


class Counts:
    """Counts of one view, one partition or one store: integers, so that sums do not depend on an order."""

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """Their sum, field by field."""
        parts = list(parts)
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # each is a dataclass
        return cls(**{name: sum(getattr(part, name) for part in parts) for name in names})


@dataclass(frozen=True, kw_only=True)
class DenseStatistics(Counts):
    """Counts of the dense arrays."""

    rows: int
    tail_entries: int
    """Class codes that are 0."""
    tail_units: int
    """Sum of their log-odds, see ``codec.dense.TAIL_UNIT``."""


@dataclass(frozen=True, kw_only=True)
class PartitionStatistics(Counts):
    """Counts of the views, boxes and kept points."""

    views: int
    boxes: int
    """Ground-truth boxes."""
    points: int
    main_points: int
    valuable_points: int
    valuable_weight_codes: int
    """Sum of the weights of the valuable region, in 2**-24."""
    edge_codes_clipped: int
    """Codes that saturated."""
    cls_codes_clipped: int


class PartitionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finished partition: its index, and what was written of it.

    Attributes:
        shards: Digest of each of its shard files, by path inside the store; no file without rows.
        marks: What ``shard_signature`` gives for each of them, by path.
    """

    partition: int
    shards: Mapping[str, FileDigest]
    marks: Mapping[str, str]
    statistics: PartitionStatistics
    dense: DenseStatistics | None = None


def record_path(scratch: Path, partition: int) -> Path:
    return scratch / "partitions" / f"p{partition:05d}.json"


def to_json(records: Any) -> Any:
    """A record, or several, as plain values: the same whatever the order in which shards were written."""
    return msgspec.to_builtins(records, order="deterministic")


def write_record(scratch: Path, record: PartitionRecord) -> None:
    content = json.dumps(to_json(record), indent=2)
    write_atomically(record_path(scratch, record.partition), content.encode(), inside=scratch)


def read_record(scratch: Path, partition: int) -> PartitionRecord | None:
    """The record of a partition, or ``None`` if there is no usable one: it then counts as unfinished."""
    path = record_path(scratch, partition)
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=PartitionRecord)
    except ValueError:
        logger.warning("%s is not readable: partition %d counts as unfinished", path, partition)
        return None
