"""Average precision by pycocotools, from a manifest instead of COCO's annotation file."""

import contextlib
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.data.manifest import Manifest
from pipeline.errors import ConfigError
from pipeline.output import replacing

AREA_UNBOUNDED = 1e10
"""COCO's upper bound of an object's area, px^2."""

PERCENT_DECIMALS = 3

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""The first six numbers of COCO's summary."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Average precision of one detector on one split, percent; ``None`` where there is no object."""

    summary: dict[str, float | None]
    """``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``."""
    per_class: dict[str, float | None]
    """AP of every category by name."""
    recall: NDArray[np.float64]
    """``(101,)`` recall grid."""
    precision: dict[str, NDArray[np.float64]]
    """``(101,)`` mean precision over the classes, by IoU threshold (``"0.50"``, ``"0.75"``, ``"0.90"``)."""


CURVE_IOUS = (0.5, 0.75, 0.9)


def evaluate(
    manifest: Manifest, results: Sequence[dict[str, Any]], area_edges: tuple[float, float]
) -> Evaluation:
    """COCO evaluation.

    Args:
        manifest: ground truth.
        results: detections in COCO's result format.
        area_edges: sides in px whose squares part small, medium and large objects (COCO: 32 and 96).
    """
    if not 0 < area_edges[0] < area_edges[1]:
        raise ConfigError(f"area_edges: expected 0 < small < large, but got {area_edges}")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = _run(manifest, results, area_edges)
    precision = evaluator.eval["precision"]
    names = [category.name for category in manifest.categories]
    return Evaluation(
        summary=dict(zip(SUMMARY, (_percent(value) for value in evaluator.stats[:6]), strict=True)),
        per_class={name: _mean_percent(precision[:, :, k, 0, -1]) for k, name in enumerate(names)},
        recall=np.asarray(evaluator.params.recThrs),
        precision={f"{iou:.2f}": _curve(evaluator, iou) for iou in CURVE_IOUS},
    )


def _run(manifest: Manifest, results: Sequence[dict[str, Any]], area_edges: tuple[float, float]) -> COCOeval:
    truth = COCO()
    truth.dataset = to_coco(manifest)
    truth.createIndex()
    evaluator = COCOeval(truth, _load_results(truth, results), "bbox")
    small, large = (edge**2 for edge in area_edges)
    evaluator.params.areaRng = [
        [0, AREA_UNBOUNDED],
        [0, small],
        [small, large],
        [large, AREA_UNBOUNDED],
    ]
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


def _load_results(truth: COCO, results: Sequence[dict[str, Any]]) -> COCO:
    """``COCO.loadRes`` fails on an empty list."""
    if results:
        return truth.loadRes([dict(result) for result in results])
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def to_coco(manifest: Manifest) -> dict[str, Any]:
    """The manifest as COCO's annotation file has it."""
    annotations = [
        {
            "id": a.annotation_id,
            "image_id": record.image_id,
            "category_id": a.category_id,
            "bbox": list(a.box_xywh),
            "area": a.area,
            "iscrowd": int(a.iscrowd),
        }
        for record in manifest.images
        for a in record.annotations
    ]
    return {
        "info": {},
        "images": [{"id": r.image_id, "height": r.height, "width": r.width} for r in manifest.images],
        "categories": [{"id": c.category_id, "name": c.name} for c in manifest.categories],
        "annotations": annotations,
    }


def _percent(value: float) -> float | None:
    """pycocotools marks "no such object" by -1."""
    return None if value < 0 else round(100 * float(value), PERCENT_DECIMALS)


def _mean_percent(precision: NDArray[np.float64]) -> float | None:
    defined = precision[precision > -1]
    return _percent(float(defined.mean())) if defined.size else None


def _curve(evaluator: COCOeval, iou: float) -> NDArray[np.float64]:
    """Mean precision over the classes that have objects: ``(101,)``."""
    threshold = int(np.argmin(np.abs(evaluator.params.iouThrs - iou)))
    precision = evaluator.eval["precision"][threshold, :, :, 0, -1]
    present = precision[:, (precision > -1).any(axis=0)]
    return np.asarray(present.mean(axis=1)) if present.size else np.zeros(len(precision))


def write_precision_recall(evaluation: Evaluation, path: Path) -> None:
    """Write the precision-recall curves as CSV: a row for every recall and IoU threshold."""
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["recall", "precision", "iou"])
        for iou, curve in evaluation.precision.items():
            for recall, precision in zip(evaluation.recall, curve, strict=True):
                writer.writerow([f"{recall:.2f}", f"{precision:.4f}", iou])
