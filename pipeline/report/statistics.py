"""What a store holds, in numbers: computed out of core with dask over its plain zarr arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.base import compute
from numpy.typing import NDArray

from pipeline.codec.edges import EDGES, dequantize_edges
from pipeline.codec.precision import Precision
from pipeline.codec.steps import edge_steps
from pipeline.store.format import schema as layout
from pipeline.store.format.schema import StoreSchema
from pipeline.store.reader.reader import read_finished, recorded_files
from pipeline.views.pyramid import level_lengths, level_sizes
from pipeline.views.types import NOT_MAIN

ENTROPY_BINS = 40
"""Columns of the entropy histograms."""

FLOAT32_BYTES = 4

BLOCK_CHUNKS = 64
"""Inner chunks that dask holds at once: 32,768 points, 4 MB of codes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreStatistics:
    """Counts over a whole store, and its sizes.

    Attributes:
        entropy_edges: (ENTROPY_BINS + 1,) bounds in nats, 0 to ``log(bins)``.
        entropy: (levels, 2, ENTROPY_BINS) edges by level, by region (valuable only, main) and by entropy of
            the teacher's distribution at temperature 1.
        edge_error: (2,) rounding error of an edge logit in the valuable region alone and in the main region,
            root mean square over all points, in logits; 0 if lossless.
        box_points: (G,) main-region points of every ground-truth box of every view.
        box_sides: (G,) square root of its area, px of the view.
        view_points: (V,) kept points of every view.
        view_main: (V,) those of the main region.
        view_positions: (V,) all positions of the view's grid.
        totals: The store's own statistics.
        bytes_by_part: Bytes on the disk by array; tables and metadata together.
    """

    entropy_edges: NDArray[np.float64]
    entropy: NDArray[np.int64]
    edge_error: NDArray[np.float64]
    box_points: NDArray[np.int64]
    box_sides: NDArray[np.float64]
    view_points: NDArray[np.int64]
    view_main: NDArray[np.int64]
    view_positions: NDArray[np.int64]
    totals: Mapping[str, Any]
    bytes_by_part: Mapping[str, int]

    @property
    def points_by_level(self) -> NDArray[np.int64]:
        """(levels, 2) points by level and region (valuable only, main)."""
        return np.asarray(self.entropy.sum(axis=-1) // EDGES)


def measure_store(path: Path, schema: StoreSchema) -> StoreStatistics:
    """Read a finished store block by block.

    Raises:
        CacheError: There is no finished store.
    """
    attributes = read_finished(path)
    group = zarr.open_group(path, mode="r")
    extent = np.asarray(_array(group, layout.EXTENT)[:])
    boxes = np.asarray(_array(group, layout.BOXES)[:])
    padded = np.asarray(_array(group, layout.GEOMETRY)[:])[:, 4:6]
    region, codes = (
        used_rows(_array(group, name), extent, schema) for name in (layout.REGION, layout.EDGE_CODES)
    )
    entropy_edges = np.linspace(0, math.log(schema.bins), ENTROPY_BINS + 1)
    entropy, box_points, squares = compute(  # type: ignore[no-untyped-call]
        entropy_histogram(codes, region, schema, entropy_edges),
        count_box_points(region, extent, len(boxes)),
        squared_steps(region, schema.precision),
    )
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).astype(np.float64)
    return StoreStatistics(
        entropy_edges=entropy_edges,
        entropy=entropy.astype(np.int64),
        edge_error=rounding_error(squares, entropy.sum(axis=(0, 2)) / EDGES, schema.bins),
        box_points=box_points.astype(np.int64),
        box_sides=np.sqrt(sides.prod(axis=1)),
        view_points=extent[:, 1],
        view_main=extent[:, 3],
        view_positions=count_positions(padded, schema.strides),
        totals=attributes["statistics"],
        bytes_by_part=bytes_by_part(attributes),
    )


def _array(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = group[name]
    assert isinstance(array, zarr.Array), f"{name} is not an array"
    return array


def used_rows(array: "zarr.Array[Any]", extent: NDArray[np.int64], schema: StoreSchema) -> da.Array:
    """The rows of a ``points`` array that belong to views, in their order: every shard has an unused tail.

    Args:
        array: Sharded, one row a point.
        extent: (V, 6) ``views/extent``.
        schema: Tells the shards.
    """
    chunks = (BLOCK_CHUNKS * schema.chunk_rows, array.shape[1])
    whole: da.Array = da.from_array(array, chunks=chunks)  # type: ignore[no-untyped-call]
    starts = [index * schema.points_per_shard for index in range(schema.partitions)]
    counts = [int(extent[schema.partition_views(index), 1].sum()) for index in range(schema.partitions)]
    parts = [whole[start : start + count] for start, count in zip(starts, counts, strict=True) if count]
    rows: da.Array = da.concatenate(parts) if parts else whole[:0]  # type: ignore[no-untyped-call]
    return rows


def entropy_histogram(
    codes: da.Array, region: da.Array, schema: StoreSchema, entropy_edges: NDArray[np.float64]
) -> da.Array:
    """Edges by level, region (valuable only, main) and entropy, see ``StoreStatistics.entropy``."""
    bounds = (np.arange(len(schema.strides) + 1) - 0.5, np.array([-0.5, 0.5, 1.5]), entropy_edges)
    counts: da.Array = da.zeros([len(bound) - 1 for bound in bounds])
    if not len(codes):
        return counts
    entropies = da.map_blocks(  # type: ignore[no-untyped-call]
        edge_entropies, codes, region, schema.precision, dtype=np.float64, chunks=(codes.chunks[0], EDGES)
    )
    place = (region[:, 0], (region[:, 2] != NOT_MAIN).astype(np.int32))
    for edge in range(EDGES):
        counts += da.histogramdd((*place, entropies[:, edge]), bins=bounds)[0]  # type: ignore[no-untyped-call]
    return counts


def edge_entropies(
    codes: NDArray[np.int16] | NDArray[np.float32], region: NDArray[np.int32], precision: Precision
) -> NDArray[np.float64]:
    """Entropy, nats, of the stored edge distributions at temperature 1.

    Args:
        codes: (P, 4 * (bins - 1)), or (P, 4 * bins) if lossless.
        region: (P, 4) rows of ``points/region``.
        precision: The quantizer's steps.

    Returns:
        (P, 4), in ``[0, log(bins)]``.
    """
    steps = edge_steps(precision, region[:, 3], region[:, 2] != NOT_MAIN)
    return entropy_of(softmax(dequantize_edges(codes, steps)))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities over the last axis, in float64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def entropy_of(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """``-sum(p log p)`` over the last axis, nats; rounding never leaves ``[0, log(bins)]``."""
    terms = np.where(probabilities > 0, probabilities * np.log(np.maximum(probabilities, 1e-300)), 0.0)
    return np.asarray(np.clip(-terms.sum(axis=-1), 0, math.log(probabilities.shape[-1])))


def squared_steps(region: da.Array, precision: Precision) -> da.Array:
    """(2,) sums of the squared steps of the edge codes, over valuable-only and over main-region points."""
    sums: da.Array = da.zeros(2)
    if len(region) and not precision.lossless:
        squares = da.map_blocks(  # type: ignore[no-untyped-call]
            _squared_steps, region, precision, dtype=np.float64, drop_axis=1
        )
        main = (region[:, 2] != NOT_MAIN).astype(np.int64)
        sums = da.bincount(main, weights=squares, minlength=2)
    return sums


def _squared_steps(region: NDArray[np.int32], precision: Precision) -> NDArray[np.float64]:
    steps = edge_steps(precision, region[:, 3], region[:, 2] != NOT_MAIN)
    assert steps is not None
    return steps.astype(np.float64) ** 2


def rounding_error(
    squared_steps: NDArray[np.float64], points: NDArray[np.float64], bins: int
) -> NDArray[np.float64]:
    """Root mean square error of a logit: each of ``bins - 1`` cosines is off by ``step / sqrt(12)``."""
    variance = squared_steps / np.maximum(points, 1) / 12 * (bins - 1) / bins
    return np.asarray(np.sqrt(variance))


def count_box_points(region: da.Array, extent: NDArray[np.int64], boxes: int) -> da.Array:
    """(G,) main-region points of every box of every view."""
    counts: da.Array = da.zeros(boxes + 1)
    if len(region):
        box_of = partial(_box_of_points, ends=np.cumsum(extent[:, 1]), box_offset=extent[:, 4])
        main_gt = region[:, 2]
        rows = da.arange(len(region), chunks=main_gt.chunks)
        box = da.map_blocks(box_of, rows, main_gt, dtype=np.int64)  # type: ignore[no-untyped-call]
        # Points outside the main region count for one box more, which is then left out.
        counts = da.bincount(box - NOT_MAIN, minlength=boxes + 1)
    inside: da.Array = counts[-NOT_MAIN:]
    return inside


def _box_of_points(
    rows: NDArray[np.int64],
    main_gt: NDArray[np.int32],
    *,
    ends: NDArray[np.int64],
    box_offset: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Row of ``boxes/xyxy`` of each point, or ``NOT_MAIN``."""
    box = box_offset[np.searchsorted(ends, rows, side="right")] + main_gt
    return np.where(main_gt == NOT_MAIN, NOT_MAIN, box)


def count_positions(padded_hw: NDArray[np.int32], strides: Sequence[int]) -> NDArray[np.int64]:
    """(V,) positions of all levels of views of ``padded_hw`` (V, 2) px."""
    sizes, where = np.unique(padded_hw, axis=0, return_inverse=True)
    counts = [sum(level_lengths(level_sizes((int(height), int(width)), strides))) for height, width in sizes]
    by_size = np.asarray(counts, np.int64)
    return by_size[where.ravel()]


def dense_bytes(positions: int, bins: int, num_classes: int, value_bytes: int = FLOAT32_BYTES) -> int:
    """Bytes of all logits at all positions: what saving the teacher's whole output would take."""
    return positions * (EDGES * bins + num_classes) * value_bytes


def kept_bytes(points: int, main_points: int, bins: int, num_classes: int, value_bytes: int) -> int:
    """Bytes of the logits that LD reads, not compressed: edges at kept points, classes at the main ones."""
    return (points * EDGES * bins + main_points * num_classes) * value_bytes


def bytes_by_part(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Recorded bytes of the large arrays, and of all the rest together."""
    parts = {layout.EDGE_CODES: 0, layout.CLS_CODES: 0, layout.REGION: 0, "tables, metadata": 0}
    for file in recorded_files(attributes):
        name = next((part for part in parts if file.name.startswith(f"{part}/c/")), "tables, metadata")
        parts[name] += file.digest.size
    return parts
