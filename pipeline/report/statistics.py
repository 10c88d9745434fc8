"""What a store holds, in numbers: sums that its writer recorded, its tables, and a sample of its views."""

import math
from collections import Counter
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
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import ViewKey

SAMPLED_VIEWS = 256
"""Views that are decoded; a store of COCO has a billion edge logits, of which this is a thousandth."""

ENTROPY_BINS = 40
"""Columns of the entropy histograms."""

FLOAT32_BYTES, FLOAT16_BYTES = 4, 2

PARTS = {
    layout.EDGE_CODES: "edge distributions",
    layout.REGION: "points and weights",
    layout.CLS_CODES: "class logits",
    layout.POINT_CLS_CODES: "class logits",
    layout.DENSE_CLASSES: "dense classes",
    layout.DENSE_BOXES: "dense boxes",
    layout.PIXELS_CRC32C: "checks of pixels",
    layout.THUMBNAIL: "checks of pixels",
}
"""The large arrays in words."""
TABLES = "tables, metadata"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreStatistics:
    """Counts over a whole store, its sizes, and distributions over a sample of its views."""

    totals: Mapping[str, Any]
    """The whole store's sums, as its writer recorded them."""
    bytes_by_part: Mapping[str, int]
    """Bytes on the disk by large array, in words; tables and metadata together."""
    view_points: NDArray[np.int64]
    """(V,) kept points of every view."""
    view_main: NDArray[np.int64]
    """(V,) those of the main region."""
    view_positions: NDArray[np.int64]
    """(V,) all positions of the view's grid."""
    sampled: int
    """Number of views in the sample, of which all that follows is."""
    entropy_edges: NDArray[np.float64]
    """(ENTROPY_BINS + 1,) bounds in nats, 0 to ``log(bins)``."""
    entropy: NDArray[np.int64]
    """(levels, 2, ENTROPY_BINS) edges by level, by region (valuable only, main) and by entropy of the
    teacher's distribution at temperature 1."""
    edge_error: NDArray[np.float64]
    """(2,) rounding error of an edge logit in the valuable region alone and in the main region, root mean
    square, in logits; 0 if lossless."""
    true_score: float
    """Mean over the main region's points of the teacher's probability of their objects' class."""
    true_first: float
    """Share of these points at which that class has the highest one."""
    box_points: NDArray[np.int64]
    """(G,) main-region points of every ground-truth box."""
    box_sides: NDArray[np.float64]
    """(G,) square root of its area, px of the view."""

    def size_by_choice(self, bins: int, num_classes: int) -> dict[str, int]:
        """Bytes of all views by what is kept of them, from the whole output to what the store takes.

        LD reads edges at kept points and classes at the main ones; neither is compressed.
        """
        positions, points, main = (
            int(counts.sum()) for counts in (self.view_positions, self.view_points, self.view_main)
        )
        dense = positions * (EDGES * bins + num_classes)
        kept = points * EDGES * bins + main * num_classes
        return {
            "all positions, float32": dense * FLOAT32_BYTES,
            "all positions, float16": dense * FLOAT16_BYTES,
            "points LD reads, float32": kept * FLOAT32_BYTES,
            "points LD reads, float16": kept * FLOAT16_BYTES,
            "this store": int(self.totals["bytes"]),
        }


def measure_store(store: TargetStore) -> StoreStatistics:
    """Read the attributes, the tables and a sample of the views of a store.

    Raises:
        CacheError: The store is damaged.
    """
    schema = store.schema
    tables = {spec.path: read_table(store.path, spec) for spec in table_specs(schema)}
    extent, padded_hw = tables[layout.EXTENT], tables[layout.GEOMETRY][:, 4:6]
    entropy_edges = np.linspace(0, math.log(schema.bins), ENTROPY_BINS + 1)
    entropy = np.zeros((len(schema.strides), 2, ENTROPY_BINS), np.int64)
    steps: list[list[NDArray[np.float64]]] = [[np.empty(0)], [np.empty(0)]]
    scores, first = [np.empty(0)], [np.empty(0)]
    box_points, box_sides = [np.empty(0, np.int64)], [np.empty(0)]
    keys = spread_keys(store.keys, SAMPLED_VIEWS)
    for view in map(store.read, keys):
        points, boxes = view.view.points, view.view.boxes_xyxy
        entropies = entropy_of(softmax(view.edge_logits()))
        for region in (0, 1):
            chosen = points.main_region == region
            for level in np.unique(points.level).tolist():
                values = entropies[chosen & (points.level == level)]
                entropy[level, region] += np.histogram(values, entropy_edges)[0]
            if view.edge_steps is not None:
                steps[region].append(view.edge_steps[chosen].astype(np.float64))
        logits, labels = view.cls_logits(), view.view.labels[points.main_gt[points.main_region]]
        scores.append(1 / (1 + np.exp(-logits[np.arange(len(labels)), labels].astype(np.float64))))
        first.append(logits.argmax(axis=1) == labels)
        box_points.append(np.bincount(points.main_gt[points.main_region], minlength=len(boxes)))
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
        box_sides.append(np.sqrt(sides.prod(axis=1)))
    # Each of ``bins - 1`` cosines is off by ``step / sqrt(12)``.
    squares = [float(np.square(part).mean()) if part.size else 0.0 for part in map(np.concatenate, steps)]
    return StoreStatistics(
        totals=store.statistics,
        bytes_by_part=bytes_by_part(read_finished(store.path)),
        view_points=extent[:, 1],
        view_main=extent[:, 3],
        view_positions=count_positions(padded_hw, schema.pyramid),
        sampled=len(keys),
        entropy_edges=entropy_edges,
        entropy=entropy,
        edge_error=np.sqrt(np.array(squares) / 12 * (schema.bins - 1) / schema.bins),
        true_score=_mean(scores),
        true_first=_mean(first),
        box_points=np.concatenate(box_points),
        box_sides=np.concatenate(box_sides),
    )


def _mean(parts: Sequence[NDArray[np.generic]]) -> float:
    values = np.concatenate(parts)
    return float(values.mean()) if values.size else 0.0


def spread_keys(keys: Sequence[ViewKey], count: int) -> list[ViewKey]:
    """A view of each of at most ``count`` evenly spread images, taking the views of an image in turn."""
    by_image: dict[int, list[ViewKey]] = {}
    for key in keys:
        by_image.setdefault(key.image_id, []).append(key)
    images = list(by_image.values())
    places = np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int)
    return [images[place][turn % len(images[place])] for turn, place in enumerate(places)]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def entropy_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-sum(p log p)`` over the last axis, nats; rounding never leaves ``[0, log(bins)]``."""
    terms = np.where(probabilities > 0, probabilities * np.log(np.maximum(probabilities, 1e-300)), 0.0)
    return np.asarray(np.clip(-terms.sum(axis=-1), 0, math.log(probabilities.shape[-1])))


def count_positions(padded_hw: NDArray[np.int32], pyramid: Pyramid) -> NDArray[np.int64]:
    """(V,) positions of all levels of views of ``padded_hw`` (V, 2) px."""
    sizes, where = np.unique(padded_hw, axis=0, return_inverse=True)
    counts = [len(pyramid.grid((height, width))) for height, width in sizes.tolist()]
    return np.asarray(counts, np.int64)[where.ravel()]


def bytes_by_part(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Recorded bytes of the large arrays, and of all the rest together; the largest first."""
    parts: Counter[str] = Counter()
    for file in recorded_files(attributes):
        parts[PARTS.get(file.name.partition("/c/")[0], TABLES)] += file.digest.size
    return dict(parts.most_common())
