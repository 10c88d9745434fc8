"""What a person wants to know about a store, from its attributes alone: fast, however large the store is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.digest import digest
from pipeline.core.errors import CacheError
from pipeline.store.format.schema import IMAGE_ID, StoreSchema, sharded_specs, table_specs
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.store.reader.shards import read_table

METADATA = "metadata"
"""Stands for all ``zarr.json`` but the root's own, which records the sizes of the others."""

CLIPPED_SUFFIX = "_clipped_fraction"


@dataclass(frozen=True, kw_only=True)
class PointCounts:
    """Kept points of a whole store; a point can be in both regions."""

    total: int
    per_view: float
    main: int
    main_per_view: float
    valuable: int
    valuable_per_view: float
    mean_valuable_weight: float


@dataclass(frozen=True, kw_only=True)
class ByteCounts:
    """Recorded bytes of a whole store.

    Attributes:
        total: Of all files but the root's metadata.
        per_view: Of one view, on average.
        per_point: Of one kept point, everything included.
        arrays: By array; ``metadata`` stands for the rest.
    """

    total: int
    per_view: float
    per_point: float
    arrays: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class StoreSummary:
    """A store in facts.

    Attributes:
        path: Folder of the store.
        format_version: Of its layout.
        views: Number of views.
        images: Number of images, or ``None`` if the table of their ids is damaged.
        boxes: Number of ground-truth boxes of all views.
        partitions: Number of partitions.
        views_per_partition: Views of a full partition.
        points: Kept points.
        bins: Bins of an edge's distribution.
        num_classes: Channels of the class logits.
        strides: Of the pyramid levels, px.
        precision: The quantizer's settings.
        quantizer: From codes to values, in words.
        clipped: Saturated share of the codes, by kind.
        bytes: Sizes.
        fingerprint_sha256: Digest of ``fingerprint``; its first 16 digits name the scratch folder.
        fingerprint: What the store was made from.
        provenance: Where it came from, for people.
        wrong_sizes: What is wrong with a file without reading it, by file; empty if all are there.
    """

    path: str
    format_version: int
    views: int
    images: int | None
    boxes: int
    partitions: int
    views_per_partition: int
    points: PointCounts
    bins: int
    num_classes: int
    strides: tuple[int, ...]
    precision: Mapping[str, Any]
    quantizer: str
    clipped: Mapping[str, float]
    bytes: ByteCounts
    fingerprint_sha256: str
    fingerprint: Mapping[str, Any]
    provenance: Mapping[str, Any]
    wrong_sizes: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(path: Path) -> StoreSummary:
    """Describe a finished store; a damaged one, too, as long as its attributes are whole.

    Raises:
        CacheError: There is no store, or it is unfinished, of another version, or its attributes are damaged.
    """
    attributes = read_finished(path)
    schema = StoreSchema.from_json(attributes["schema"])
    statistics = attributes["statistics"]
    return StoreSummary(
        path=str(path),
        format_version=attributes["schema"]["format_version"],
        views=schema.views,
        images=_count_images(path, schema),
        boxes=schema.boxes,
        partitions=schema.partitions,
        views_per_partition=schema.views_per_partition,
        points=_count_points(statistics),
        bins=schema.bins,
        num_classes=schema.num_classes,
        strides=schema.strides,
        precision=schema.precision.to_json(),
        quantizer=attributes["quantizer"],
        clipped={
            name.removesuffix(CLIPPED_SUFFIX): share
            for name, share in statistics.items()
            if name.endswith(CLIPPED_SUFFIX)
        },
        bytes=ByteCounts(
            total=statistics["bytes"],
            per_view=statistics["bytes_per_view"],
            per_point=statistics["bytes_per_point"],
            arrays=bytes_by_array(attributes, schema),
        ),
        fingerprint_sha256=digest(schema.fingerprint),
        fingerprint=schema.fingerprint,
        provenance=schema.provenance,
        wrong_sizes=_wrong_sizes(path, attributes),
    )


def bytes_by_array(attributes: Mapping[str, Any], schema: StoreSchema) -> dict[str, int]:
    """Recorded bytes of every array's chunks, the largest first, then those of all metadata."""
    sizes = {spec.path: 0 for spec in (*sharded_specs(schema), *table_specs(schema))}
    metadata = 0
    for file in recorded_files(attributes):
        array = file.name.partition("/c/")[0]
        if array in sizes:
            sizes[array] += file.digest.size
        else:
            metadata += file.digest.size
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return {**dict(ordered), METADATA: metadata}


def _count_points(statistics: Mapping[str, Any]) -> PointCounts:
    views = max(1, statistics["views"])
    return PointCounts(
        total=statistics["points"],
        per_view=statistics["points_per_view"],
        main=statistics["main_points"],
        main_per_view=statistics["main_points"] / views,
        valuable=statistics["valuable_points"],
        valuable_per_view=statistics["valuable_points"] / views,
        mean_valuable_weight=statistics["mean_valuable_weight"],
    )


def _count_images(path: Path, schema: StoreSchema) -> int | None:
    """How many images the views are of: the one fact that the attributes do not hold."""
    (spec,) = (spec for spec in table_specs(schema) if spec.path == IMAGE_ID)
    try:
        return len(np.unique(read_table(path, spec)))
    except (CacheError, OSError):
        return None


def _wrong_sizes(path: Path, attributes: Mapping[str, Any]) -> dict[str, str]:
    problems = {file.name: file.digest.size_problem(path / file.name) for file in recorded_files(attributes)}
    return {name: problem for name, problem in problems.items() if problem}
