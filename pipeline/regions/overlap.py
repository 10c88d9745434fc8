"""The overlap of anchors and boxes that bounds the valuable localization region."""

from typing import Literal

from torch import Tensor

from pipeline.views.box_ops import EPSILON, box_areas, box_intersection, box_iou

VlrOverlap = Literal["released", "diou"]
"""``released``: as the LD repository computes it; ``diou``: as the paper writes it."""


def box_iof(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Intersection over the area of the *first* box, ``Tensor[...]``."""
    return box_intersection(boxes1_xyxy, boxes2_xyxy) / box_areas(boxes1_xyxy).clamp(min=EPSILON)


def center_penalty(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """``d^2 / c^2`` of DIoU: squared center distance over squared enclosing diagonal, ``Tensor[...]``."""
    left1, top1, right1, bottom1 = boxes1_xyxy.unbind(-1)
    left2, top2, right2, bottom2 = boxes2_xyxy.unbind(-1)
    width = right1.maximum(right2).sub_(left1.minimum(left2))
    height = bottom1.maximum(bottom2).sub_(top1.minimum(top2))
    diagonal = width.square_().add_(height.square_())
    across = (left2 + right2).sub(left1 + right1).square_()
    down = (top2 + bottom2).sub(top1 + bottom1).square_()
    return across.add_(down).div_(4).div_(diagonal.clamp_(min=EPSILON))


def vlr_overlap(anchors_xyxy: Tensor, boxes_xyxy: Tensor, overlap: VlrOverlap) -> Tensor:
    """The overlap ``D`` that bounds the valuable localization region, ``Tensor[...]``.

    ``diou``: ``IoU - d^2/c^2`` (LD paper, CVPR 2022, section 3.3). ``released``: the LD repository's
    ``iou2d_calculator`` divides the intersection by the *anchor's area* where the union belongs;
    the published results were most likely trained with it.
    """
    match overlap:
        case "released":
            first = box_iof(anchors_xyxy, boxes_xyxy)
        case "diou":
            first = box_iou(anchors_xyxy, boxes_xyxy)
        case _:
            raise ValueError(f"overlap: expected 'released' or 'diou', but got {overlap!r}")
    return first - center_penalty(anchors_xyxy, boxes_xyxy)
