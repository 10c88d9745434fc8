"""From views and teacher outputs to the rows of one partition, and its statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.codec.dense import TAIL_UNIT, DensePrecision, encode_boxes
from pipeline.codec.logits import EDGES, edge_columns, quantize_classes, quantize_edges
from pipeline.store.format import schema as layout
from pipeline.store.format.completion import DenseStatistics, PartitionRecord, PartitionStatistics
from pipeline.store.format.schema import StoreSchema
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import NOT_MAIN, KeptPoints, LabeledView, SoftTargets

WEIGHT_SUM_UNIT = 2**24
"""Sums of weights are of whole 2**-24, so that they do not depend on an order."""


VIEWS_TOGETHER = 8
"""Quantized at a time: at 96 px it is the number of operations that takes time, not their size."""

REGION_SOURCES = ("level", "position", "main_gt", "valuable_weight")


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
    pairs = list(zip(views, targets, strict=True))
    runs = (pairs[start : start + VIEWS_TOGETHER] for start in range(0, len(pairs), VIEWS_TOGETHER))
    parts = [_quantize(schema, run) for run in runs]
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


def _quantize(schema: StoreSchema, run: Sequence[tuple[LabeledView, SoftTargets]]) -> PartitionRows:
    try:
        return _quantize_run(schema, *zip(*run, strict=True))
    except ValueError as error:
        for pair in run if len(run) > 1 else ():
            _quantize(schema, [pair])  # raises, by the name of its view
        error.add_note("image_id={}, view={}".format(*run[0][0].key))
        raise


def _quantize_run(
    schema: StoreSchema, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> PartitionRows:
    precision = schema.precision
    for view, soft in zip(views, targets, strict=True):
        _require_shapes(schema, view.points, soft)
    points = [view.points for view in views]
    level, position, main_gt, weight = (
        np.concatenate([getattr(each, name) for each in points]) for name in REGION_SOURCES
    )
    main_region = main_gt != NOT_MAIN
    weights = schema.weight_code
    weight_codes = weights.quantize(weight)
    columns = (level, position, main_gt, weight_codes)
    region = np.stack([column.astype(np.int32) for column in columns], axis=1)
    steps = precision.edge_steps(weights, weight_codes, main_region)
    stored_weights = weights.dequantize(weight_codes).astype(np.float64)
    edges = quantize_edges(np.concatenate([soft.edge_logits for soft in targets]), steps)
    classes = quantize_classes(np.concatenate([soft.cls_logits for soft in targets]), precision.cls_step)
    statistics = PartitionStatistics(
        views=len(views),
        boxes=sum(len(view.labels) for view in views),
        points=len(region),
        main_points=int(np.count_nonzero(main_region)),
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
        seen = [soft.pixels for soft in targets if soft.pixels is not None]
        if len(seen) < len(targets):
            raise ValueError("expected the pixels that the teacher saw, but got none")
        arrays[layout.PIXELS_CRC32C] = np.array([[pixels.crc32c] for pixels in seen], np.uint32)
        arrays[layout.THUMBNAIL] = np.stack([pixels.thumbnail.ravel() for pixels in seen])
    if schema.dense is None:
        return PartitionRows(arrays=arrays, statistics=statistics)
    pairs = zip(views, targets, strict=True)
    rows, dense = zip(*(_dense_rows(schema, schema.dense, *pair) for pair in pairs), strict=True)
    arrays |= {path: np.concatenate([row[path] for row in rows]) for path in rows[0]}
    return PartitionRows(arrays=arrays, statistics=statistics, dense=DenseStatistics.total(dense))


def _require_shapes(schema: StoreSchema, points: KeptPoints, soft: SoftTargets) -> None:
    rows = len(points) if schema.valuable_classes else points.main_count
    shapes = {"edge_logits": (len(points), EDGES, schema.bins), "cls_logits": (rows, schema.num_classes)}
    for name, expected in shapes.items():
        got = getattr(soft, name).shape
        if got != expected:
            raise ValueError(f"expected {name} of shape {expected}, but got {got}")


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
