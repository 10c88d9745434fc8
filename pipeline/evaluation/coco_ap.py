"""Average precision as pycocotools computes it, from a manifest instead of COCO's annotation file.

Computed by ``faster-coco-eval``, which has pycocotools' classes and figures with the loops in C++.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from pipeline.core.files import write_csv
from pipeline.views.classes import Category, class_names
from pipeline.views.manifest import Manifest

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # else twenty lines an evaluation

AREA_UNBOUNDED = 1e10
"""COCO's upper bound of an object's area, px^2."""

PERCENT_DECIMALS = 3

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""The first six numbers of COCO's summary."""

HEADLINE = SUMMARY[:3]
"""What is printed of them."""


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
    """COCO evaluation of detections in COCO's result format; ``area_edges`` as in ``EvaluateConfig``."""
    evaluator = _run(manifest, results, area_edges)
    precision = evaluator.eval["precision"]
    names = class_names(manifest.categories)
    return Evaluation(
        summary=dict(zip(SUMMARY, (_percent(value) for value in evaluator.stats[:6]), strict=True)),
        per_class={name: _mean_percent(precision[:, :, k, 0, -1]) for k, name in enumerate(names)},
        recall=np.asarray(evaluator.params.recThrs),
        precision={f"{iou:.2f}": _curve(evaluator, iou) for iou in CURVE_IOUS},
    )


def _run(
    manifest: Manifest, results: Sequence[dict[str, Any]], area_edges: tuple[float, float]
) -> COCOeval_faster:
    truth = COCO(to_coco(manifest, manifest.categories))
    evaluator = COCOeval_faster(truth, _load_results(truth, results), "bbox")
    evaluator.params.areaRng = _area_ranges(area_edges)
    evaluator.run()
    return evaluator


def _area_ranges(area_edges: tuple[float, float]) -> list[list[float]]:
    """All objects, small, medium and large ones, px^2."""
    small, large = (edge**2 for edge in area_edges)
    return [[0, AREA_UNBOUNDED], [0, small], [small, large], [large, AREA_UNBOUNDED]]


def _load_results(truth: COCO, results: Sequence[dict[str, Any]]) -> COCO:
    """``COCO.loadRes`` fails on an empty list, and writes into what it is given."""
    if results:
        return truth.loadRes([dict(result) for result in results])
    return COCO({**truth.dataset, "annotations": []})


def to_coco(manifest: Manifest, categories: Sequence[Category]) -> dict[str, Any]:
    """The annotations of some categories as COCO's annotation file has them, but for their ids.

    They are numbered from 1: pycocotools takes an id of 0 for "unmatched".
    """
    images, annotations = manifest.images, manifest.images.annotations
    ids = [category.category_id for category in categories]
    rows = annotations[np.isin(annotations["category_id"], ids)]
    return {
        "info": {},
        "images": [
            {"id": image_id, "height": height, "width": width}
            for image_id, (height, width) in zip(
                images.image_id.tolist(), images.size_hw.tolist(), strict=True
            )
        ],
        "categories": [{"id": c.category_id, "name": c.name} for c in categories],
        "annotations": [_to_annotation(number, row) for number, row in enumerate(rows.tolist(), 1)],
    }


def _to_annotation(number: int, row: tuple[Any, ...]) -> dict[str, Any]:
    image_id, _, category_id, *box, area, iscrowd, _ = row
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": area,
        "iscrowd": int(iscrowd),
    }


def _percent(value: float) -> float | None:
    """pycocotools marks "no such object" by -1."""
    return None if value < 0 else round(100 * float(value), PERCENT_DECIMALS)


def _mean_percent(precision: NDArray[np.float64]) -> float | None:
    defined = precision[precision > -1]
    return _percent(float(defined.mean())) if defined.size else None


def _curve(evaluator: COCOeval_faster, iou: float) -> NDArray[np.float64]:
    """Mean precision over the classes that have objects: ``(101,)``."""
    threshold = int(np.argmin(np.abs(evaluator.params.iouThrs - iou)))
    precision = evaluator.eval["precision"][threshold, :, :, 0, -1]
    present = precision[:, (precision > -1).any(axis=0)]
    return np.asarray(present.mean(axis=1)) if present.size else np.zeros(len(precision))


def write_precision_recall(evaluation: Evaluation, path: Path) -> None:
    """Write the precision-recall curves as CSV: a row for every recall and IoU threshold."""
    rows = [
        (f"{recall:.2f}", f"{precision:.4f}", iou)
        for iou, curve in evaluation.precision.items()
        for recall, precision in zip(evaluation.recall, curve, strict=True)
    ]
    write_csv(path, ["recall", "precision", "iou"], rows)
