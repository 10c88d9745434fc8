"""Average precision from a manifest, by ``faster-coco-eval``: pycocotools' figures with the loops in C++."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from pipeline.core.files import write_csv
from pipeline.views.classes import class_names
from pipeline.views.manifest import Manifest

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # else twenty lines an evaluation

MAX_AREA = 1e10
"""COCO's upper bound of an object's area, px^2."""

CURVE_IOUS = (0.5, 0.75, 0.9)

SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")
"""The first six numbers of COCO's summary."""


class Evaluation(NamedTuple):
    """Average precision of one detector on one split, percent; ``None`` where there is no object."""

    summary: dict[str, float | None]
    """By the names of ``SUMMARY``."""
    per_class: dict[str, float | None]
    """By name of the category."""
    precision: dict[str, NDArray[np.float64]]
    """``(101,)`` means over the classes at recalls of 0, 0.01, ... 1, by IoU threshold (``"0.50"``, ...)."""


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
        summary=dict(zip(SUMMARY, map(_percent, np.array(evaluator.stats)[:6, None]), strict=True)),
        per_class={name: _percent(precision[:, :, k, 0, -1]) for k, name in enumerate(names)},
        precision={f"{iou:.2f}": _curve(evaluator, iou) for iou in CURVE_IOUS},
    )


def to_coco(manifest: Manifest) -> dict[str, Any]:
    """The annotations as COCO's annotation file has them, but numbered from 1: an id of 0 is "unmatched"."""
    images = manifest.images
    sizes = zip(images.image_id.tolist(), images.size_hw.tolist(), strict=True)
    rows = enumerate(images.annotations.tolist(), 1)
    return {
        "info": {},
        "images": [{"id": image_id, "height": height, "width": width} for image_id, (height, width) in sizes],
        "categories": [{"id": c.category_id, "name": c.name} for c in manifest.categories],
        "annotations": [
            {"id": number, "image_id": image_id, "category_id": category_id}
            | {"bbox": box, "area": area, "iscrowd": int(iscrowd)}
            for number, (image_id, _, category_id, *box, area, iscrowd, _) in rows
        ],
    }


def _percent(values: NDArray[np.float64]) -> float | None:
    """The mean; pycocotools marks "no such object" by -1."""
    defined = values[values > -1]
    return round(100 * float(defined.mean()), 3) if defined.size else None


def _curve(evaluator: COCOeval_faster, iou: float) -> NDArray[np.float64]:
    """Mean precision over the classes that have objects: ``(101,)``."""
    threshold = int(np.argmin(np.abs(evaluator.params.iouThrs - iou)))
    precision = evaluator.eval["precision"][threshold, :, :, 0, -1]
    present = precision[:, (precision > -1).any(axis=0)]
    return np.asarray(present.mean(axis=1)) if present.size else np.zeros(len(precision))


def write_precision_recall(evaluation: Evaluation, path: Path) -> None:
    """Write the curves as CSV: a row for every recall and IoU threshold."""
    rows = [
        (f"{percent / 100:.2f}", f"{precision:.4f}", iou)
        for iou, curve in evaluation.precision.items()
        for percent, precision in enumerate(curve)
    ]
    write_csv(path, ["recall", "precision", "iou"], rows)
