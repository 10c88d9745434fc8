"""The index of all views: what the writer must know before the first teacher output exists."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import CacheError
from pipeline.store.format import schema as layout
from pipeline.store.format.schema import DENSE_CHUNK_ROWS, StoreSchema
from pipeline.views.geometry import ResizeMode, ViewGeometry
from pipeline.views.types import LabeledView

PATHS = {
    "image_id": layout.IMAGE_ID,
    "view": layout.VIEW,
    "geometry": layout.GEOMETRY,
    "boxes_xyxy": layout.BOXES,
    "labels": layout.LABELS,
}
"""Arrays of a store that are fields of its index as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewIndex:
    """One row per view in ascending order of keys, and the boxes of all views one after another."""

    image_id: NDArray[np.int64]
    view: NDArray[np.int32]
    geometry: NDArray[np.int32]
    """(V, 7), see ``schema.GEOMETRY_COLUMNS``."""
    counts: NDArray[np.int64]
    """(V, 3): points, main-region points and boxes of each view."""
    boxes_xyxy: NDArray[np.float32]
    labels: NDArray[np.int32]

    @classmethod
    def from_views(cls, views: Iterable[LabeledView]) -> "ViewIndex":
        """List views, of which a generator will do; a ``CacheError`` if the keys do not ascend strictly."""
        rows = [(v.key, v.geometry, counts_row(v), v.boxes_xyxy, v.labels) for v in views]
        keys, geometries, counts, boxes, labels = zip(*rows, strict=True) if rows else ((),) * 5
        geometry = [(*g.original_hw, *g.resized_hw, *g.padded_hw, g.flip) for g in geometries]
        numbers = np.array(keys, dtype=np.int64).reshape(len(keys), 2)
        return cls(
            image_id=numbers[:, 0].copy(),
            view=numbers[:, 1].astype(np.int32),
            geometry=np.array(geometry, dtype=np.int32).reshape(len(keys), len(layout.GEOMETRY_COLUMNS)),
            counts=np.array(counts, dtype=np.int64).reshape(len(keys), 3),
            boxes_xyxy=np.concatenate([np.empty((0, 4)), *boxes]).astype(np.float32),
            labels=np.concatenate([np.empty(0), *labels]).astype(np.int32),
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "ViewIndex":
        """Inverse of ``arrays``: the table of a finished store."""
        columns = {name: arrays[path] for name, path in PATHS.items()}
        return cls(**columns, counts=arrays[layout.EXTENT][:, 1::2].copy())

    @classmethod
    def concatenate(cls, tables: Sequence["ViewIndex"]) -> "ViewIndex":
        """Join the tables of consecutive runs of views, such as those of different workers."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})

    def __post_init__(self) -> None:
        for before, after in pairwise(zip(self.image_id.tolist(), self.view.tolist(), strict=True)):
            if before >= after:
                raise CacheError(
                    f"expected views in strictly ascending (image_id, view), but got {after} after {before}"
                )

    def __len__(self) -> int:
        return len(self.image_id)

    def digest(self) -> str:
        """sha256 (hex) of all values."""
        return hashlib.sha256(b"".join(getattr(self, f.name).tobytes() for f in fields(self))).hexdigest()

    def arrays(self, schema: StoreSchema) -> Mapping[str, NDArray[Any]]:
        """The values of ``schema.table_specs``, by path."""
        points, main, boxes = self.counts.T
        first_point = _first_rows(points, schema.views_per_partition, schema.points_per_shard)
        first_main = _first_rows(main, schema.views_per_partition, schema.main_per_shard)
        extents = (first_point, points, first_main, main, np.cumsum(boxes) - boxes, boxes)
        columns = {path: getattr(self, name) for name, path in PATHS.items()}
        return {**columns, layout.EXTENT: np.stack(extents, axis=1)}


def fit_schema(schema: StoreSchema, table: ViewIndex) -> StoreSchema:
    """``schema`` with the sizes that these views need: all are known before the teacher starts."""
    starts = np.arange(0, len(table), schema.views_per_partition)

    def shard_rows(counts: NDArray[np.int64], chunk_rows: int) -> int:
        """Rows of the fullest partition, rounded up to whole chunks, at least one."""
        fullest = int(np.add.reduceat(counts, starts).max()) if len(counts) else 0
        return max(1, -(-fullest // chunk_rows)) * chunk_rows

    positions = position_counts(table.geometry, schema.strides)
    return replace(
        schema,
        views=len(table),
        boxes=len(table.labels),
        points_per_shard=shard_rows(table.counts[:, 0], schema.chunk_rows),
        main_per_shard=shard_rows(table.counts[:, 1], schema.chunk_rows),
        dense_per_shard=shard_rows(positions, DENSE_CHUNK_ROWS) if schema.dense else 0,
    )


def position_counts(geometry: NDArray[np.int32], strides: Sequence[int]) -> NDArray[np.int64]:
    """Positions of each view, (V,), from rows (V, 7) of ``views/geometry``: its rows in the dense arrays."""
    padded_hw = geometry[:, 4:6].astype(np.int64)
    cells = [(-(-padded_hw // stride)).prod(axis=1) for stride in strides]
    return np.asarray(np.sum(cells, axis=0), np.int64)


def dense_extents(schema: StoreSchema, geometry: NDArray[np.int32]) -> NDArray[np.int64]:
    """(V, 2) first row and number of rows of each view in the dense arrays."""
    counts = position_counts(geometry, schema.strides)
    return np.stack([_first_rows(counts, schema.views_per_partition, schema.dense_per_shard), counts], axis=1)


def _first_rows(
    counts: NDArray[np.int64], views_per_partition: int, rows_per_shard: int
) -> NDArray[np.int64]:
    """The first row of each view in an array of which every partition owns a shard."""
    before, partition = np.cumsum(counts) - counts, np.arange(len(counts)) // views_per_partition
    return np.asarray(before - before[partition * views_per_partition] + partition * rows_per_shard)


def geometry_from_row(row: Sequence[int], fit: ResizeMode) -> ViewGeometry:
    """The geometry of a row of ``views/geometry``; the fit is the same for all views of a store."""
    sizes = {"original_hw": (row[0], row[1]), "resized_hw": (row[2], row[3]), "padded_hw": (row[4], row[5])}
    return ViewGeometry(**sizes, flip=bool(row[6]), fit=fit)


def counts_row(view: LabeledView) -> tuple[int, int, int]:
    return len(view.points), view.points.main_count, len(view.labels)
