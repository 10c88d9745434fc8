"""Overlaps of boxes, with the denominators of the reference (never below 1e-6)."""

from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-6
"""Lower bound of every denominator (mmdetection ``bbox_overlaps``), px^2."""

VlrOverlap = Literal["released", "diou"]
"""``released``: as the LD repository computes it; ``diou``: as the paper writes it."""


def box_areas(boxes_xyxy: Tensor) -> Tensor:
    """Areas ``Tensor[...]`` of ``Tensor[..., 4]`` boxes, px^2."""
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def pairwise_intersections(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Intersection areas ``Tensor[N, G]`` of ``Tensor[N, 4]`` with ``Tensor[G, 4]``."""
    upper_left = torch.maximum(boxes1_xyxy[:, None, :2], boxes2_xyxy[None, :, :2])
    lower_right = torch.minimum(boxes1_xyxy[:, None, 2:], boxes2_xyxy[None, :, 2:])
    width, height = (lower_right - upper_left).clamp(min=0).unbind(-1)
    return width * height


def pairwise_iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """IoU ``Tensor[N, G]`` of ``Tensor[N, 4]`` with ``Tensor[G, 4]``."""
    intersection = pairwise_intersections(boxes1_xyxy, boxes2_xyxy)
    union = box_areas(boxes1_xyxy)[:, None] + box_areas(boxes2_xyxy)[None] - intersection
    return intersection / union.clamp(min=EPSILON)


def pairwise_iof(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Intersection over the area of the *first* box, ``Tensor[N, G]``."""
    intersection = pairwise_intersections(boxes1_xyxy, boxes2_xyxy)
    return intersection / box_areas(boxes1_xyxy)[:, None].clamp(min=EPSILON)


def centre_penalty(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """``d^2 / c^2`` of DIoU: squared centre distance over squared enclosing diagonal, ``Tensor[N, G]``."""
    upper_left = torch.minimum(boxes1_xyxy[:, None, :2], boxes2_xyxy[None, :, :2])
    lower_right = torch.maximum(boxes1_xyxy[:, None, 2:], boxes2_xyxy[None, :, 2:])
    diagonal = (lower_right - upper_left).square().sum(-1)
    centres1 = boxes1_xyxy[:, None, :2] + boxes1_xyxy[:, None, 2:]
    centres2 = boxes2_xyxy[None, :, :2] + boxes2_xyxy[None, :, 2:]
    return (centres2 - centres1).square().sum(-1) / 4 / diagonal.clamp(min=EPSILON)


def pairwise_vlr_overlap(anchors_xyxy: Tensor, boxes_xyxy: Tensor, overlap: VlrOverlap) -> Tensor:
    """The overlap ``D`` that bounds the valuable localization region, ``Tensor[N, G]``.

    ``diou``: ``IoU - d^2/c^2`` (LD paper, CVPR 2022, section 3.3). ``released``: the LD repository's
    ``iou2d_calculator`` divides the intersection by the *anchor's area* where the union belongs;
    the published results were most likely trained with it.
    """
    match overlap:
        case "released":
            first = pairwise_iof(anchors_xyxy, boxes_xyxy)
        case "diou":
            first = pairwise_iou(anchors_xyxy, boxes_xyxy)
        case _:
            raise ValueError(f"overlap: expected 'released' or 'diou', but got {overlap!r}")
    return first - centre_penalty(anchors_xyxy, boxes_xyxy)
