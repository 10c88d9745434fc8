"""Overlaps and distances of boxes ``Tensor[..., 4]``, whose leading dimensions broadcast."""

import torch
from torch import Tensor

EPSILON = 1e-6
"""Lower bound of every denominator (mmdetection ``bbox_overlaps``), px^2."""


def box_areas(boxes_xyxy: Tensor) -> Tensor:
    """Areas ``Tensor[...]`` of ``Tensor[..., 4]`` boxes, px^2."""
    return (boxes_xyxy[..., 2] - boxes_xyxy[..., 0]) * (boxes_xyxy[..., 3] - boxes_xyxy[..., 1])


def box_intersection(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Intersection areas ``Tensor[...]``, px^2."""
    left1, top1, right1, bottom1 = boxes1_xyxy.unbind(-1)
    left2, top2, right2, bottom2 = boxes2_xyxy.unbind(-1)
    width = right1.minimum(right2).sub_(left1.maximum(left2)).clamp_(min=0)
    height = bottom1.minimum(bottom2).sub_(top1.maximum(top2)).clamp_(min=0)
    return width.mul_(height)


def box_iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Intersection over union, ``Tensor[...]``."""
    intersection = box_intersection(boxes1_xyxy, boxes2_xyxy)
    union = box_areas(boxes1_xyxy) + box_areas(boxes2_xyxy) - intersection
    return intersection / union.clamp_(min=EPSILON)


def decode_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes ``Tensor[..., 4]`` of points ``(x, y)`` and distances ``(l, t, r, b)``, all in the same unit."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def expected_distances(edge_logits: Tensor) -> Tensor:
    """Means ``Tensor[..., 4]``, in strides, of edge distributions ``Tensor[..., 4, bins]``."""
    bins = torch.arange(edge_logits.shape[-1], device=edge_logits.device)
    return edge_logits.softmax(dim=-1) @ bins.float()


def encode_distances(points: Tensor, boxes_xyxy: Tensor, limit: float | None = None) -> Tensor:
    """Distances ``Tensor[..., 4]`` (l, t, r, b) from points to edges, clamped to ``[0, limit]`` if given."""
    distances = torch.cat([points - boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - points], dim=-1)
    return distances if limit is None else distances.clamp(min=0, max=limit)
