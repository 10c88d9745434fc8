"""A few views as plain arrays in one ``.npz`` file, for any program that knows numpy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.edges import EDGES
from pipeline.core.errors import CacheError
from pipeline.core.files import atomic_path
from pipeline.store.format.schema import StoreSchema
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.store.tools.points import locate_points
from pipeline.views.types import ViewKey

MOST_NAMED = 8
"""Image ids that an error names."""

CONTENT = {
    "image_id": "(V,) int64",
    "view": "(V,) int64, number of the view of its image",
    "original_hw": "(V, 2) int64, height and width of the image, px",
    "resized_hw": "(V, 2) int64, the same of the view",
    "padded_hw": "(V, 2) int64, the same with its padding",
    "flip": "(V,) bool, whether the view is mirrored",
    "point_offset": "(V + 1,) int64, view v has the points point_offset[v] to point_offset[v + 1]",
    "main_offset": "(V + 1,) int64, the same for rows of cls_logits",
    "box_offset": "(V + 1,) int64, the same for boxes",
    "level": "(P,) int64, index of the pyramid level",
    "position": "(P,) int64, row-major cell of the level's grid of the padded view",
    "stride": "(P,) int64, px",
    "point_xy": "(P, 2) float32, px of the view",
    "main_gt": "(P,) int64, index of the box among the boxes of its view, -1 outside the main region",
    "valuable_weight": "(P,) float32, 0 outside the valuable region",
    "edge_logits": "(P, 4, bins) float32, edges left, top, right, bottom; up to a constant an edge",
    "cls_logits": "(M, classes) float32, for the main-region points in their order",
    "main_point": "(M,) int64, the point that a row of cls_logits is of",
    "boxes_xyxy": "(G, 4) float32, px of the view",
    "labels": "(G,) int64",
    "strides": "(levels,) int64, px",
    "format_version": "() int64, of the store",
}
"""The arrays of an exported file: V views, P points, M main-region points, G boxes."""


def choose_views(store: TargetStore, image_ids: Sequence[int] | None, most: int | None) -> list[ViewKey]:
    """All views of some images, or views that are evenly spread over the store; at most ``most``.

    Raises:
        CacheError: An image is not in the store.
    """
    if image_ids is None:
        keys = store.keys
        count = len(keys) if most is None else min(most, len(keys))
        return [keys[row] for row in np.linspace(0, len(keys) - 1, count).round().astype(int)]
    chosen = [
        ViewKey(image_id, view)
        for image_id in sorted(set(image_ids))
        for view in views_of_image(store, image_id)
    ]
    return chosen[:most]


def views_of_image(store: TargetStore, image_id: int) -> tuple[int, ...]:
    """Numbers of the views of an image.

    Raises:
        CacheError: The image is not in the store; names some that are, the nearest ids among them.
    """
    views = store.views_of(image_id)
    if views:
        return views
    known = sorted({key.image_id for key in store.keys}, key=lambda other: abs(other - image_id))
    named = ", ".join(map(str, sorted(known[:MOST_NAMED])))
    raise CacheError(
        f"expected the id of one of the {len(known):,} images of {store.path}, such as {named}, "
        f"but got {image_id}"
    )


def export_views(store: TargetStore, keys: Sequence[ViewKey]) -> dict[str, NDArray[Any]]:
    """The arrays of ``CONTENT`` for some views of a store, dequantized.

    Raises:
        CacheError: A view is not stored, or its partition is damaged.
    """
    schema = store.schema
    views = [store.read(key) for key in keys]
    parts = [_rows_of_view(view, schema) for view in views]
    rows = {
        name: np.concatenate([empty, *(part[name] for part in parts)])
        for name, empty in _no_rows(schema).items()
    }
    offsets = {name: _offsets([len(part[rows]) for part in parts]) for name, rows in OFFSETS.items()}
    first_points = offsets["point_offset"][:-1].repeat(np.diff(offsets["main_offset"]))
    return {
        "image_id": np.asarray([key.image_id for key in keys], np.int64),
        "view": np.asarray([key.view for key in keys], np.int64),
        **_geometry_columns(views),
        **offsets,
        **rows,
        "main_point": rows["main_point"] + first_points,
        "strides": np.asarray(schema.strides, np.int64),
        "format_version": np.asarray(schema.format_version, np.int64),
    }


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays without pickles, to exactly this name."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


OFFSETS = {"point_offset": "level", "main_offset": "main_point", "box_offset": "labels"}
"""Offsets of the views, and an array whose rows they count."""


def _offsets(counts: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _geometry_columns(views: Sequence[StoredView]) -> dict[str, NDArray[Any]]:
    geometries = [view.view.geometry for view in views]
    sizes = {
        name: np.asarray([getattr(geometry, name) for geometry in geometries], np.int64).reshape(-1, 2)
        for name in ("original_hw", "resized_hw", "padded_hw")
    }
    return {**sizes, "flip": np.asarray([geometry.flip for geometry in geometries], np.bool_)}


def _no_rows(schema: StoreSchema) -> dict[str, NDArray[Any]]:
    """Every array that has rows for points, main-region points or boxes, without any."""
    whole = ("level", "position", "stride", "main_gt", "main_point", "labels")
    return {
        **{name: np.empty(0, np.int64) for name in whole},
        "point_xy": np.empty((0, 2), np.float32),
        "valuable_weight": np.empty(0, np.float32),
        "edge_logits": np.empty((0, EDGES, schema.bins), np.float32),
        "cls_logits": np.empty((0, schema.num_classes), np.float32),
        "boxes_xyxy": np.empty((0, 4), np.float32),
    }


def _rows_of_view(view: StoredView, schema: StoreSchema) -> dict[str, NDArray[Any]]:
    """The rows of one view; its ``main_point`` counts from its own first point."""
    labeled, points = view.view, view.view.points
    places = locate_points(labeled, schema.pyramid)
    return {
        "level": points.level.astype(np.int64),
        "position": points.position.astype(np.int64),
        "stride": places.stride,
        "main_gt": points.main_gt.astype(np.int64),
        "main_point": np.flatnonzero(points.main_region).astype(np.int64),
        "labels": labeled.labels,
        "point_xy": places.xy,
        "valuable_weight": points.valuable_weight,
        "edge_logits": view.edge_logits(),
        "cls_logits": view.cls_logits(),
        "boxes_xyxy": labeled.boxes_xyxy,
    }
