"""How far detections agree with the annotations of a few images, in figures that tell faults apart."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.evaluation.coco_ap import evaluate
from pipeline.evaluation.detect import Detections, to_results
from pipeline.views.box_ops import box_iou
from pipeline.views.manifest import Manifest
from pipeline.views.summary import AREA_EDGES

FOUND_IOU = 0.5


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
    figures: dict[str, list[Tensor]] = defaultdict(list)
    confusion = torch.zeros(len(manifest.categories), len(manifest.categories))
    for record in manifest.images:
        truth, detected = manifest.training_boxes(record.image_id), detections[record.image_id]
        labels = torch.from_numpy(truth.labels)
        iou = box_iou(torch.from_numpy(truth.boxes_xyxy)[:, None], detected.boxes_xyxy[None])
        figures["blind"].append(_best(iou, 1))
        if len(detected.labels):
            best = ((iou >= FOUND_IOU) * detected.scores).max(dim=1)
            seen = best.values > 0
            pairs = labels[seen], detected.labels[best.indices[seen]]
            confusion.index_put_(pairs, torch.ones(()), accumulate=True)
        iou = iou * (labels[:, None] == detected.labels[None])
        figures["objects"].append(_best(iou, 1))
        figures["merits"].append(_best(iou * detected.scores, 1))
        figures["errors"].append((detected.scores - _best(iou, 0)).abs())
    ids = [category.category_id for category in manifest.categories]
    results = [row for image, boxes in detections.items() for row in to_results(image, boxes, ids)]
    joined = {name: torch.cat(parts) for name, parts in figures.items()}
    return Agreement(
        ap=(evaluate(manifest, results, AREA_EDGES).summary["AP"] or 0.0) / 100,
        recall=_mean(joined["objects"] >= FOUND_IOU),
        blind_recall=_mean(joined["blind"] >= FOUND_IOU),
        iou=_mean(joined["objects"]),
        score_error=_mean(joined["errors"]),
        confusion=confusion,
        merits=joined["merits"],
    )


def _best(iou: Tensor, axis: int) -> Tensor:
    """Largest value along an axis; 0 where there is none."""
    return iou.amax(dim=axis) if iou.shape[axis] else iou.new_zeros(iou.shape[1 - axis])


def _mean(values: Tensor) -> float:
    return float(values.float().mean()) if len(values) else 0.0
