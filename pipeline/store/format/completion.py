"""Completion records: what a partition's writer leaves last, and so what proves that it finished."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from pipeline.core.files import FileDigest, write_atomically

logger = logging.getLogger(__name__)

COUNTS = (
    *("views", "boxes", "points", "main_points", "valuable_points"),
    "valuable_weight_codes",  # the sum of the weights of the valuable region, in 2**-24
    *("edge_codes_clipped", "cls_codes_clipped"),
)
DENSE_COUNTS = ("rows", "tail_entries", "tail_units")
"""Of the dense arrays: class codes that are 0, and the sum of their log-odds in ``codec.dense.TAIL_UNIT``."""

Counts = Mapping[str, int]
"""By name, of some views: integers, so that sums do not depend on an order."""


def total(names: Sequence[str], parts: Iterable[Counts]) -> Counts:
    """Sums, in the order of ``names``."""
    parts = list(parts)
    return {name: sum(part[name] for part in parts) for name in names}


class PartitionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finished partition: its index, and what was written of it.

    Attributes:
        shards: Digest of each of its shard files, by path inside the store; no file without rows.
        marks: What ``shard_signature`` gives for each of them, by path.
        statistics: By the names of ``COUNTS``.
        dense: By the names of ``DENSE_COUNTS``.
    """

    partition: int
    shards: Mapping[str, FileDigest]
    marks: Mapping[str, str]
    statistics: Counts
    dense: Counts | None = None


def record_path(scratch: Path, partition: int) -> Path:
    return scratch / "partitions" / f"p{partition:05d}.json"


def write_record(scratch: Path, record: PartitionRecord) -> None:
    write_atomically(record_path(scratch, record.partition), msgspec.json.encode(record), inside=scratch)


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
