"""From views and teacher outputs to the rows of one partition, and its statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.dense import TAIL_UNIT, DensePrecision, encode_boxes
from pipeline.codec.logits import EDGES, edge_columns, quantize_classes, quantize_edges
from pipeline.codec.steps import edge_steps
from pipeline.store.format import schema as layout
from pipeline.store.format.completion import DenseStatistics, PartitionRecord, PartitionStatistics
from pipeline.store.format.schema import StoreSchema
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView, SoftTargets

WEIGHT_SUM_UNIT = 2**24
"""Sums of weights are of whole 2**-24, so that they do not depend on an order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionRows:
    """The rows of one view or of one partition, by path of the array, and their statistics."""

    arrays: Mapping[str, NDArray[Any]]
    statistics: PartitionStatistics
    dense: DenseStatistics | None = None


def quantize_partition(
    schema: StoreSchema, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> PartitionRows:
    """Quantize the views of one partition and put their rows one after another.

    A target of the wrong shape, or that is not finite, is a ``ValueError`` with the view's key as a note.
    """
    parts = []
    for view, soft in zip(views, targets, strict=True):
        try:
            parts.append(_quantize_view(schema, view, soft))
        except ValueError as error:
            error.add_note(f"image_id={view.key.image_id}, view={view.key.view}")
            raise
    return PartitionRows(
        arrays={path: np.concatenate([part.arrays[path] for part in parts]) for path in parts[0].arrays},
        statistics=PartitionStatistics.total(part.statistics for part in parts),
        dense=DenseStatistics.total(part.dense for part in parts if part.dense) if schema.dense else None,
    )


def store_statistics(
    schema: StoreSchema, records: Sequence[PartitionRecord], stored_bytes: int
) -> dict[str, Any]:
    """The store's attribute ``statistics``."""
    total = PartitionStatistics.total(record.statistics for record in records)
    edge_codes = total.points * edge_columns(schema.bins, lossless=schema.precision.lossless)
    weight = total.valuable_weight_codes / WEIGHT_SUM_UNIT
    cls_rows = total.points if schema.valuable_classes else total.main_points
    statistics = {
        **asdict(total),
        "mean_valuable_weight": _ratio(weight, total.valuable_points),
        "edge_clipped_fraction": _ratio(total.edge_codes_clipped, edge_codes),
        "cls_clipped_fraction": _ratio(total.cls_codes_clipped, cls_rows * schema.num_classes),
        "points_per_view": _ratio(total.points, total.views),
        "bytes": stored_bytes,
        "bytes_per_view": _ratio(stored_bytes, total.views),
        "bytes_per_point": _ratio(stored_bytes, total.points),
    }
    if schema.dense:
        dense = DenseStatistics.total(record.dense for record in records if record.dense)
        tail = None if schema.dense.lossless else float(schema.dense.log_odds[0])
        if dense.tail_entries:
            tail = dense.tail_units / TAIL_UNIT / dense.tail_entries
        statistics["dense"] = {**asdict(dense), "tail_log_odds": tail}
    return statistics


def _quantize_view(schema: StoreSchema, view: LabeledView, soft: SoftTargets) -> PartitionRows:
    points, precision = view.points, schema.precision
    shapes = {
        "edge_logits": (len(points), EDGES, schema.bins),
        "cls_logits": (len(points) if schema.valuable_classes else points.main_count, schema.num_classes),
    }
    for name, expected in shapes.items():
        got = getattr(soft, name).shape
        if got != expected:
            raise ValueError(f"expected {name} of shape {expected}, but got {got}")
    weights = schema.weight_code
    weight_codes = weights.quantize(points.valuable_weight)
    columns = (points.level, points.position, points.main_gt, weight_codes)
    region = np.stack([column.astype(np.int32) for column in columns], axis=1)
    steps = edge_steps(precision, weights, weight_codes, points.main_region)
    stored_weights = weights.dequantize(weight_codes).astype(np.float64)
    edges = quantize_edges(soft.edge_logits, steps)
    classes = quantize_classes(soft.cls_logits, precision.cls_step)
    statistics = PartitionStatistics(
        views=1,
        boxes=len(view.labels),
        points=len(points),
        main_points=points.main_count,
        valuable_points=int(np.count_nonzero(weight_codes)),
        valuable_weight_codes=int(np.rint(stored_weights * WEIGHT_SUM_UNIT).sum()),
        edge_codes_clipped=edges.clipped,
        cls_codes_clipped=classes.clipped,
    )
    arrays: dict[str, NDArray[Any]] = {
        layout.REGION: region,
        layout.EDGE_CODES: edges.codes,
        schema.cls_path: classes.codes,
    }
    if schema.pixels:
        if soft.pixels is None:
            raise ValueError("expected the pixels that the teacher saw, but got none")
        arrays[layout.PIXELS_CRC32C] = np.array([[soft.pixels.crc32c]], np.uint32)
        arrays[layout.THUMBNAIL] = soft.pixels.thumbnail.reshape(1, -1)
    if schema.dense is None:
        return PartitionRows(arrays=arrays, statistics=statistics)
    dense_arrays, dense = _dense_rows(schema, schema.dense, view, soft)
    return PartitionRows(arrays=arrays | dense_arrays, statistics=statistics, dense=dense)


def _dense_rows(
    schema: StoreSchema, precision: DensePrecision, view: LabeledView, soft: SoftTargets
) -> tuple[dict[str, NDArray[Any]], DenseStatistics]:
    dense = soft.dense
    rows = len(Pyramid(schema.strides, 0).grid(view.geometry.padded_hw))
    expected = ((rows, schema.num_classes), precision.class_dtype, (rows, EDGES))
    got = dense and (dense.classes.shape, dense.classes.dtype.name, dense.distances.shape)
    if dense is None or got != expected:
        raise ValueError(f"expected dense outputs of {expected}, but got {got}")
    tail = 0 if precision.lossless else int(np.count_nonzero(dense.classes == 0))
    statistics = DenseStatistics(rows=rows, tail_entries=tail, tail_units=dense.tail_units)
    return {
        layout.DENSE_CLASSES: dense.classes,
        layout.DENSE_BOXES: encode_boxes(dense.distances),
    }, statistics


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
