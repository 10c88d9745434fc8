"""From views and teacher outputs to the rows of one partition, and its statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.codec.dense import TAIL_UNIT, encode_boxes
from pipeline.codec.logits import EDGES, edge_columns, quantize_classes, quantize_edges
from pipeline.core.files import FileDigest
from pipeline.store.format import schema as layout
from pipeline.store.format.schema import StoreSchema
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import NOT_MAIN, LabeledView, SoftTargets

WEIGHT_SUM_UNIT = 2**24  # sums of weights are of whole 2**-24, so that they do not depend on an order
VIEWS_TOGETHER = 8  # at 96 px it is the number of operations that takes time, not their size
COUNTS: dict[str, tuple[str, ...]] = {
    "statistics": (
        *("views", "boxes", "points", "main_points", "valuable_points"),
        "valuable_weight_codes",  # the sum of the weights of the valuable region, in 2**-24
        *("edge_codes_clipped", "cls_codes_clipped"),
    ),
    # Of the dense arrays: class codes that are 0, and the sum of their log-odds in TAIL_UNIT.
    "dense": ("rows", "tail_entries", "tail_units"),
}
Counts = Mapping[str, int]


class PartitionRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A finished partition, and what was written of it."""

    partition: int
    shards: Mapping[str, FileDigest]
    """By path inside the store; there is no file without rows."""
    marks: Mapping[str, str]
    """The signature of each shard, see ``encode_shard``."""
    statistics: Counts
    dense: Counts | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PartitionRows:
    """The rows of some views, by path of the array, and what there is of them, by the names of ``COUNTS``."""

    arrays: Mapping[str, NDArray[Any]]
    counts: Mapping[str, Counts]


def quantize_partition(
    schema: StoreSchema, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> PartitionRows:
    """The rows of one partition's views; a ``ValueError`` if outputs are of a wrong shape or not finite."""
    pairs = list(zip(views, targets, strict=True))
    runs = (pairs[start : start + VIEWS_TOGETHER] for start in range(0, len(pairs), VIEWS_TOGETHER))
    parts = [_quantize(schema, *zip(*run, strict=True)) for run in runs]
    return PartitionRows(
        arrays={path: np.concatenate([part.arrays[path] for part in parts]) for path in parts[0].arrays},
        counts={name: _total(name, [part.counts[name] for part in parts]) for name in parts[0].counts},
    )


def store_statistics(
    schema: StoreSchema, records: Sequence[PartitionRecord], stored_bytes: int
) -> dict[str, Any]:
    """The store's attribute ``statistics``."""
    sums = _total("statistics", [record.statistics for record in records])
    edge_codes = sums["points"] * edge_columns(schema.bins, lossless=schema.precision.lossless)
    cls_codes = sums["points" if schema.valuable_classes else "main_points"] * schema.num_classes
    weight = sums["valuable_weight_codes"] / WEIGHT_SUM_UNIT
    statistics: dict[str, Any] = {
        **sums,
        "mean_valuable_weight": _ratio(weight, sums["valuable_points"]),
        "edge_clipped_fraction": _ratio(sums["edge_codes_clipped"], edge_codes),
        "cls_clipped_fraction": _ratio(sums["cls_codes_clipped"], cls_codes),
        "points_per_view": _ratio(sums["points"], sums["views"]),
        "bytes": stored_bytes,
        "bytes_per_view": _ratio(stored_bytes, sums["views"]),
        "bytes_per_point": _ratio(stored_bytes, sums["points"]),
    }
    if schema.dense:
        dense = _total("dense", [record.dense for record in records if record.dense])
        tail = None if schema.dense.lossless else float(schema.dense.log_odds[0])
        if dense["tail_entries"]:
            tail = dense["tail_units"] / TAIL_UNIT / dense["tail_entries"]
        statistics["dense"] = {**dense, "tail_log_odds": tail}
    return statistics


def _quantize(
    schema: StoreSchema, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> PartitionRows:
    """The rows of a few views, all at once."""
    level, position, main_gt, weight = (
        np.concatenate([getattr(view.points, name) for view in views])
        for name in ("level", "position", "main_gt", "valuable_weight")
    )
    edge_logits = np.concatenate([soft.edge_logits for soft in targets])
    cls_logits = np.concatenate([soft.cls_logits for soft in targets])
    main_region = main_gt != NOT_MAIN
    kept, main = len(main_gt), int(np.count_nonzero(main_region))
    _require_shape("edge_logits", edge_logits, kept, EDGES, schema.bins)
    _require_shape("cls_logits", cls_logits, kept if schema.valuable_classes else main, schema.num_classes)
    weights, precision = schema.weight_code, schema.precision
    codes = weights.quantize(weight)
    region = np.stack([level, position, main_gt, codes], axis=1).astype(np.int32)
    edges = quantize_edges(edge_logits, precision.edge_steps(weights, codes, main_region))
    classes = quantize_classes(cls_logits, precision.cls_step)
    stored_weights = weights.dequantize(codes).astype(np.float64)
    statistics = {
        "views": len(views),
        "boxes": sum(len(view.labels) for view in views),
        "points": kept,
        "main_points": main,
        "valuable_points": int(np.count_nonzero(codes)),
        "valuable_weight_codes": int(np.rint(stored_weights * WEIGHT_SUM_UNIT).sum()),
        "edge_codes_clipped": edges.clipped,
        "cls_codes_clipped": classes.clipped,
    }
    counts: dict[str, Counts] = {"statistics": statistics}
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
    if schema.dense:
        dense, counts["dense"] = _dense_rows(schema, views, targets)
        arrays |= dense
    return PartitionRows(arrays=arrays, counts=counts)


def _dense_rows(
    schema: StoreSchema, views: Sequence[LabeledView], targets: Sequence[SoftTargets]
) -> tuple[dict[str, NDArray[Any]], Counts]:
    outputs = [soft.dense for soft in targets if soft.dense is not None]
    if len(outputs) < len(views):
        raise ValueError("expected the teacher's outputs at every position, but got none")
    boxes = np.concatenate([encode_boxes(dense.distances) for dense in outputs])
    classes = np.concatenate([dense.classes for dense in outputs])
    rows = sum(len(Pyramid(schema.strides, 0).grid(view.geometry.padded_hw)) for view in views)
    _require_shape("dense classes", classes, rows, schema.num_classes)
    _require_shape("dense distances", boxes, rows, EDGES)
    tail = int(np.count_nonzero(classes == 0)) if classes.dtype == np.uint8 else 0
    counts = {"rows": rows, "tail_entries": tail, "tail_units": sum(dense.tail_units for dense in outputs)}
    return {layout.DENSE_CLASSES: classes, layout.DENSE_BOXES: boxes}, counts


def _total(name: str, parts: Sequence[Counts]) -> Counts:
    return {each: sum(part[each] for part in parts) for each in COUNTS[name]}


def _require_shape(name: str, values: NDArray[Any], *expected: int) -> None:
    if values.shape != expected:
        raise ValueError(f"expected {name} of shape {expected}, but got {values.shape}")


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else 0.0
