"""Completion records: what a partition's writer leaves last, and so what proves that it finished."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.core.files import FileDigest, write_atomically

RECORDS_FOLDER = "partitions"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PartitionStatistics:
    """Counts of one view, one partition or one store: integers, so that sums do not depend on an order.

    Attributes:
        views: Views.
        boxes: Ground-truth boxes.
        points: Points.
        main_points: Points in the main region.
        valuable_points: Points in the valuable region.
        valuable_weight_codes: Sum of the weights of the valuable region, see ``WeightCode.total``.
        edge_codes_clipped: Edge codes that saturated.
        cls_codes_clipped: Class codes that saturated.
    """

    views: int
    boxes: int
    points: int
    main_points: int
    valuable_points: int
    valuable_weight_codes: int
    edge_codes_clipped: int
    cls_codes_clipped: int

    @classmethod
    def total(cls, parts: Iterable["PartitionStatistics"]) -> "PartitionStatistics":
        parts = list(parts)
        return cls(**{field.name: sum(getattr(part, field.name) for part in parts) for field in fields(cls)})

    def to_json(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "PartitionStatistics":
        return cls(**{field.name: int(document[field.name]) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class PartitionRecord:
    """A finished partition.

    Attributes:
        partition: Its index.
        shards: Digest of each of its shard files, by path inside the store; no file without rows.
        marks: What ``shard_signature`` gives for each of them, by path.
        statistics: Of its content.
    """

    partition: int
    shards: Mapping[str, FileDigest]
    marks: Mapping[str, str]
    statistics: PartitionStatistics

    def to_json(self) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "shards": {path: shard.to_json() for path, shard in sorted(self.shards.items())},
            "marks": dict(sorted(self.marks.items())),
            "statistics": self.statistics.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "PartitionRecord":
        return cls(
            partition=document["partition"],
            shards={path: FileDigest.from_json(shard) for path, shard in document["shards"].items()},
            marks=dict(document["marks"]),
            statistics=PartitionStatistics.from_json(document["statistics"]),
        )


def record_path(scratch: Path, partition: int) -> Path:
    return scratch / RECORDS_FOLDER / f"p{partition:05d}.json"


def write_record(scratch: Path, record: PartitionRecord) -> None:
    content = json.dumps(record.to_json(), indent=2)
    write_atomically(record_path(scratch, record.partition), content.encode(), inside=scratch)


def read_record(scratch: Path, partition: int) -> PartitionRecord | None:
    """The record of a partition, or ``None`` if there is no usable one: it then counts as unfinished."""
    path = record_path(scratch, partition)
    if not path.is_file():
        return None
    try:
        return PartitionRecord.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError):
        logger.warning("%s is not readable: partition %d counts as unfinished", path, partition)
        return None
