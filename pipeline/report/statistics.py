"""What a store holds, in numbers: sums that its writer recorded, its tables, and a sample of its views."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.edges import EDGES
from pipeline.store.format import schema as layout
from pipeline.store.format.schema import table_specs
from pipeline.store.reader.reader import TargetStore, read_finished, recorded_files
from pipeline.store.reader.shards import read_table
from pipeline.store.reader.stored import StoredView
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import ViewKey

SAMPLED_VIEWS = 256
"""Views that are decoded; a store of COCO has a billion edge logits, of which this is a thousandth."""

ENTROPY_BINS = 40
"""Columns of the entropy histograms."""

FLOAT32_BYTES = 4

TABLES = "tables, metadata"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreStatistics:
    """Counts over a whole store, its sizes, and distributions over a sample of its views.

    Attributes:
        totals: The whole store's sums, as its writer recorded them.
        bytes_by_part: Bytes on the disk by array; tables and metadata together.
        view_points: (V,) kept points of every view.
        view_main: (V,) those of the main region.
        view_positions: (V,) all positions of the view's grid.
        sampled: Number of views in the sample, of which all that follows is.
        entropy_edges: (ENTROPY_BINS + 1,) bounds in nats, 0 to ``log(bins)``.
        entropy: (levels, 2, ENTROPY_BINS) edges by level, by region (valuable only, main) and by entropy of
            the teacher's distribution at temperature 1.
        edge_error: (2,) rounding error of an edge logit in the valuable region alone and in the main region,
            root mean square, in logits; 0 if lossless.
        box_points: (G,) main-region points of every ground-truth box.
        box_sides: (G,) square root of its area, px of the view.
    """

    totals: Mapping[str, Any]
    bytes_by_part: Mapping[str, int]
    view_points: NDArray[np.int64]
    view_main: NDArray[np.int64]
    view_positions: NDArray[np.int64]
    sampled: int
    entropy_edges: NDArray[np.float64]
    entropy: NDArray[np.int64]
    edge_error: NDArray[np.float64]
    box_points: NDArray[np.int64]
    box_sides: NDArray[np.float64]

    @property
    def points_by_level(self) -> NDArray[np.int64]:
        """(levels, 2) sampled points by level and region (valuable only, main)."""
        return np.asarray(self.entropy.sum(axis=-1) // EDGES)


def measure_store(store: TargetStore) -> StoreStatistics:
    """Read the attributes, the tables and a sample of the views of a store.

    Raises:
        CacheError: The store is damaged.
    """
    schema, attributes = store.schema, read_finished(store.path)
    tables = {spec.path: read_table(store.path, spec) for spec in table_specs(schema)}
    extent, padded_hw = tables[layout.EXTENT], tables[layout.GEOMETRY][:, 4:6]
    views = [store.read(key) for key in spread_keys(store.keys, SAMPLED_VIEWS)]
    entropy_edges = np.linspace(0, math.log(schema.bins), ENTROPY_BINS + 1)
    return StoreStatistics(
        totals=store.statistics,
        bytes_by_part=bytes_by_part(attributes),
        view_points=extent[:, 1],
        view_main=extent[:, 3],
        view_positions=count_positions(padded_hw, schema.pyramid),
        sampled=len(views),
        entropy_edges=entropy_edges,
        entropy=entropy_histogram(views, len(schema.strides), entropy_edges),
        edge_error=rounding_error(views, schema.bins),
        box_points=_joined([count_box_points(view) for view in views], np.int64),
        box_sides=_joined([box_sides(view) for view in views], np.float64),
    )


def spread_keys(keys: Sequence[ViewKey], count: int) -> list[ViewKey]:
    """A view of each of at most ``count`` evenly spread images, taking the views of an image in turn."""
    by_image: dict[int, list[ViewKey]] = {}
    for key in keys:
        by_image.setdefault(key.image_id, []).append(key)
    images = list(by_image.values())
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[place][turn % len(images[place])] for turn, place in enumerate(places)]


def _joined(parts: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])


def entropy_histogram(
    views: Sequence[StoredView], levels: int, entropy_edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Edges by level, region (valuable only, main) and entropy, see ``StoreStatistics.entropy``."""
    counts = np.zeros((levels, 2, len(entropy_edges) - 1), np.int64)
    for view in views:
        entropies, points = entropy_of(softmax(view.edge_logits())), view.view.points
        for level in np.unique(points.level).tolist():
            for main in (0, 1):
                chosen = entropies[(points.level == level) & (points.main_region == main)]
                counts[level, main] += np.histogram(chosen, entropy_edges)[0]
    return counts


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def entropy_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-sum(p log p)`` over the last axis, nats; rounding never leaves ``[0, log(bins)]``."""
    terms = np.where(probabilities > 0, probabilities * np.log(np.maximum(probabilities, 1e-300)), 0.0)
    return np.asarray(np.clip(-terms.sum(axis=-1), 0, math.log(probabilities.shape[-1])))


def rounding_error(views: Sequence[StoredView], bins: int) -> NDArray[np.float64]:
    """(2,) root mean square error of a logit: each of ``bins - 1`` cosines is off by ``step / sqrt(12)``."""
    steps = _joined([view.edge_steps for view in views if view.edge_steps is not None], np.float64)
    if not len(steps):
        return np.zeros(2)
    main = _joined([view.view.points.main_region for view in views], np.bool_)
    squares = [float(np.square(steps[chosen]).mean()) if chosen.any() else 0.0 for chosen in (~main, main)]
    return np.sqrt(np.array(squares) / 12 * (bins - 1) / bins)


def count_box_points(view: StoredView) -> NDArray[np.int64]:
    """(G,) main-region points of every box of a view."""
    points = view.view.points
    return np.bincount(points.main_gt[points.main_region], minlength=len(view.view.labels))


def box_sides(view: StoredView) -> NDArray[np.float64]:
    """(G,) square roots of the areas of a view's boxes, px."""
    boxes = view.view.boxes_xyxy
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
    return np.asarray(np.sqrt(sides.prod(axis=1)))


def count_positions(padded_hw: NDArray[np.int32], pyramid: Pyramid) -> NDArray[np.int64]:
    """(V,) positions of all levels of views of ``padded_hw`` (V, 2) px."""
    sizes, where = np.unique(padded_hw, axis=0, return_inverse=True)
    counts = [len(pyramid.grid((height, width))) for height, width in sizes.tolist()]
    by_size = np.asarray(counts, np.int64)
    return by_size[where.ravel()]


def dense_bytes(positions: int, bins: int, num_classes: int, value_bytes: int = FLOAT32_BYTES) -> int:
    """Bytes of all logits at all positions: what saving the teacher's whole output would take."""
    return positions * (EDGES * bins + num_classes) * value_bytes


def kept_bytes(
    points: int, main_points: int, bins: int, num_classes: int, value_bytes: int = FLOAT32_BYTES
) -> int:
    """Bytes of the logits that LD reads, not compressed: edges at kept points, classes at the main ones."""
    return (points * EDGES * bins + main_points * num_classes) * value_bytes


def bytes_by_part(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Recorded bytes of the large arrays, and of all the rest together."""
    parts = {layout.EDGE_CODES: 0, layout.CLS_CODES: 0, layout.REGION: 0, TABLES: 0}
    for file in recorded_files(attributes):
        array = file.name.partition("/c/")[0]
        parts[array if array in parts else TABLES] += file.digest.size
    return parts
