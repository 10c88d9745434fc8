"""The views that a benchmark reads, as plain zarr has them: the content that every reader must give."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.store.format import schema as layout
from pipeline.views.types import ViewKey

ViewArrays = Mapping[str, NDArray[Any]]
"""The rows of one view, by the path of their array in the store."""


@dataclass(frozen=True, kw_only=True)
class ViewRows:
    """Where the rows of a view are in the arrays ``points/*``, ``main/*`` and ``boxes/*``."""

    points: slice
    main: slice
    boxes: slice

    def of(self, path: str) -> slice:
        """Rows of the array at ``path``."""
        rows: slice = getattr(self, path.split("/")[0])
        return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Some views of a store.

    Attributes:
        store: Path of the store.
        rows: Where the rows of each view are, in ascending order of keys.
        sharded: Paths of the arrays that partitions fill.
        boxes: Whole arrays ``boxes/*``, by path: tables, which any reader holds in memory.
    """

    store: Path
    rows: Mapping[ViewKey, ViewRows]
    sharded: tuple[str, ...]
    boxes: ViewArrays

    @classmethod
    def draw(cls, store: Path, views: int, seed: int = 0) -> "Sample":
        """Draw at most ``views`` views of a finished store."""
        root = zarr.open_group(store, mode="r")
        image_id, view, extent = (
            read_rows(root, path, slice(None)) for path in (layout.IMAGE_ID, layout.VIEW, layout.EXTENT)
        )
        drawn = np.sort(np.random.default_rng(seed).permutation(len(extent))[:views]).tolist()
        paths = sorted(path for path, node in root.members(max_depth=None) if isinstance(node, zarr.Array))
        return cls(
            store=store,
            rows={ViewKey(int(image_id[row]), int(view[row])): _view_rows(extent[row]) for row in drawn},
            sharded=tuple(path for path in paths if path.startswith(("points/", "main/"))),
            boxes={path: read_rows(root, path, slice(None)) for path in paths if path.startswith("boxes/")},
        )

    @property
    def points_per_view(self) -> float:
        """Mean number of kept points."""
        return float(np.mean([rows.points.stop - rows.points.start for rows in self.rows.values()]))

    def boxes_of(self, key: ViewKey) -> ViewArrays:
        """The boxes of a view."""
        return {path: values[self.rows[key].boxes] for path, values in self.boxes.items()}

    def content(self) -> Iterator[tuple[ViewKey, ViewArrays]]:
        """Every view as plain zarr reads it."""
        root = zarr.open_group(self.store, mode="r")
        for key, rows in self.rows.items():
            sharded = {path: read_rows(root, path, rows.of(path)) for path in self.sharded}
            yield key, {**sharded, **self.boxes_of(key)}


def read_rows(root: zarr.Group, path: str, rows: slice) -> NDArray[Any]:
    """Rows of one array of a store, by zarr itself."""
    array = root[path]
    assert isinstance(array, zarr.Array), f"{path} is not an array"
    return np.asarray(array[rows])


def _view_rows(extent: NDArray[np.int64]) -> ViewRows:
    points, main, boxes = (slice(first, first + count) for first, count in extent.reshape(3, 2).tolist())
    return ViewRows(points=points, main=main, boxes=boxes)
