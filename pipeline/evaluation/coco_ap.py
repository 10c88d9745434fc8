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
from pipeline.views.classes import class_names
from pipeline.views.manifest import Manifest

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # else twenty lines an evaluation

MAX_AREA = 1e10
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
    truth = COCO(to_coco(manifest))
    # ``COCO.loadRes`` fails on an empty list, and writes into what it is given.
    empty = {**truth.dataset, "annotations": []}
    found = truth.loadRes([dict(result) for result in results]) if results else COCO(empty)
    evaluator = COCOeval_faster(truth, found, "bbox")
    small, large = (edge**2 for edge in area_edges)
    evaluator.params.areaRng = [[0, MAX_AREA], [0, small], [small, large], [large, MAX_AREA]]
    evaluator.run()
    precision = evaluator.eval["precision"]
    names = class_names(manifest.categories)
    return Evaluation(
        summary=dict(zip(SUMMARY, (_percent(value) for value in evaluator.stats[:6]), strict=True)),
        per_class={name: _mean_percent(precision[:, :, k, 0, -1]) for k, name in enumerate(names)},
        recall=np.asarray(evaluator.params.recThrs),
        precision={f"{iou:.2f}": _curve(evaluator, iou) for iou in CURVE_IOUS},
    )


def to_coco(manifest: Manifest) -> dict[str, Any]:
    """The annotations as COCO's annotation file has them, but for their ids.

    They are numbered from 1: pycocotools takes an id of 0 for "unmatched".
    """
    images, rows = manifest.images, manifest.images.annotations.tolist()
    sizes = zip(images.image_id.tolist(), images.size_hw.tolist(), strict=True)
    return {
        "info": {},
        "images": [{"id": image_id, "height": height, "width": width} for image_id, (height, width) in sizes],
        "categories": [{"id": c.category_id, "name": c.name} for c in manifest.categories],
        "annotations": [_to_annotation(number, row) for number, row in enumerate(rows, 1)],
    }


def _to_annotation(number: int, row: tuple[Any, ...]) -> dict[str, Any]:
    image_id, _, category_id, *box, area, iscrowd, _ = row
    ids = {"id": number, "image_id": image_id, "category_id": category_id}
    return {**ids, "bbox": box, "area": area, "iscrowd": int(iscrowd)}


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
