"""How far detections agree with the annotations of a few images, in figures that tell faults apart."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import to_results
from pipeline.evaluation.postprocess import Detections
from pipeline.views.box_ops import box_iou
from pipeline.views.manifest import Manifest, training_boxes

FOUND_IOU = 0.5
COCO_AREA_EDGES = (32.0, 96.0)
"""Sides in px that part COCO's small, medium and large objects."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Agreement:
    """How far detections agree with annotations; every figure is between 0 and 1."""

    ap: float
    """COCO's."""
    recall: float
    """Share of the objects with a detection of their class at IoU 0.5."""
    blind_recall: float
    """The same, of any class."""
    iou: float
    """Mean over the objects of the best IoU of a detection of their class."""
    score_error: float
    """Mean over the detections of ``|score - IoU|`` with the best object of their class."""
    confusion: Tensor
    """``Tensor[classes, classes]``: objects by their class and that of the surest detection at IoU 0.5."""
    merits: Tensor
    """``Tensor[objects]``: largest ``score * IoU`` of a detection of the object's class, 0 without one."""

    def gain_over(self, other: "Agreement") -> float:
        """Mean difference of the merits, object by object, in its standard errors."""
        difference = (self.merits - other.merits).double()
        error = difference.std() / len(difference) ** 0.5
        return float(difference.mean() / error) if error > 0 else 0.0


def measure_agreement(manifest: Manifest, detections: Mapping[int, Detections]) -> Agreement:
    """Compare the detections of every image of a manifest, by ``image_id``, with its annotations."""
    category_ids = [category.category_id for category in manifest.categories]
    results = [row for image, found in detections.items() for row in to_results(image, found, category_ids)]
    figures: dict[str, list[Tensor]] = defaultdict(list)
    confusion = torch.zeros(len(category_ids), len(category_ids))
    for record in manifest.images:
        truth, found = training_boxes(record, manifest.labels), detections[record.image_id]
        iou = box_iou(torch.from_numpy(truth.boxes_xyxy)[:, None], found.boxes_xyxy[None])
        figures["blind"].append(_best(iou, 1))
        labels, guesses = torch.from_numpy(truth.labels), found.labels
        if len(guesses):
            best = ((iou >= FOUND_IOU) * found.scores).max(dim=1)
            seen = best.values > 0
            confusion.index_put_((labels[seen], guesses[best.indices[seen]]), torch.ones(()), accumulate=True)
        iou = iou * (torch.from_numpy(truth.labels)[:, None] == found.labels[None])
        figures["objects"].append(_best(iou, 1))
        figures["merits"].append(_best(iou * found.scores, 1))
        figures["errors"].append((found.scores - _best(iou, 0)).abs())
    objects, errors = torch.cat(figures["objects"]), torch.cat(figures["errors"])
    return Agreement(
        ap=(evaluate(manifest, results, COCO_AREA_EDGES).summary["AP"] or 0.0) / 100,
        recall=_mean([objects >= FOUND_IOU]),
        blind_recall=_mean([torch.cat(figures["blind"]) >= FOUND_IOU]),
        iou=_mean([objects]),
        score_error=_mean([errors]),
        confusion=confusion,
        merits=torch.cat(figures["merits"]),
    )


def _best(iou: Tensor, axis: int) -> Tensor:
    """Largest value along an axis; 0 where there is none."""
    return iou.amax(dim=axis) if iou.shape[axis] else iou.new_zeros(iou.shape[1 - axis])


def _mean(parts: Sequence[Tensor]) -> float:
    values = torch.cat(list(parts)).float()
    return float(values.mean()) if len(values) else 0.0
