"""Adaptive Training Sample Selection: the main region of distillation.

Source: Zhang et al., CVPR 2020; mmdetection ``core/bbox/assigners/atss_assigner.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.regions.overlap import pairwise_iof, pairwise_iou

TOP_K = 9
"""Candidates per level and box (``topk`` of the GFL configurations)."""

INSIDE_MARGIN_PX = 0.01
"""A positive's point lies inside its box by more than this on all four sides (reference literal)."""

IGNORED_DISTANCE_PX = 1e8
"""Distance given to cells under an ignore box, so that they are candidates last (reference: ``INF``)."""

NEGATIVE = -1
IGNORED = -2


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What ATSS decides for the ``N`` positions and ``G`` boxes of one view."""

    gt_index: Tensor
    """``LongTensor[N]``: index of the box a position is positive for; -1 negative, -2 ignored."""
    iou: Tensor
    """``Tensor[N]``: IoU of anchor and assigned box; 0 where not positive."""
    thresholds: Tensor
    """``Tensor[G]``: the adaptive IoU threshold of every box."""


def assign_atss(
    anchors_xyxy: Tensor,
    lengths: Sequence[int],
    boxes_xyxy: Tensor,
    *,
    ignored_boxes_xyxy: Tensor | None = None,
    ignored_iof_threshold: float = -1.0,
) -> Assignment:
    """Assign positions to ground-truth boxes.

    Args:
        anchors_xyxy: ``Tensor[N, 4]`` px, level after level.
        lengths: positions of each level, summing to ``N``.
        boxes_xyxy: ``Tensor[G, 4]`` px.
        ignored_boxes_xyxy: ``Tensor[K, 4]``; used only with a positive ``ignored_iof_threshold``.
        ignored_iof_threshold: cells whose anchor lies in an ignored box by more than this are ignored
            unless positive; the reference's default, -1, switches it off.
    """
    if boxes_xyxy.shape[0] == 0:
        return _all_negative(anchors_xyxy)
    iou = pairwise_iou(anchors_xyxy, boxes_xyxy)
    points = (anchors_xyxy[:, :2] + anchors_xyxy[:, 2:]) / 2
    distances = _centre_distances(points, boxes_xyxy)
    ignored = _ignored_cells(anchors_xyxy, ignored_boxes_xyxy, ignored_iof_threshold)
    distances[ignored] = IGNORED_DISTANCE_PX
    candidates = _nearest_per_level(distances, lengths)
    thresholds = _adaptive_thresholds(iou, candidates)
    positive = _positives(iou, candidates, thresholds, _inside(points, boxes_xyxy))
    best_iou, best_gt = torch.where(positive, iou, -torch.inf).max(dim=1)
    is_positive = positive.any(dim=1)
    background = torch.where(ignored, IGNORED, NEGATIVE)
    return Assignment(
        gt_index=torch.where(is_positive, best_gt, background),
        iou=torch.where(is_positive, best_iou, 0.0),
        thresholds=thresholds,
    )


def _all_negative(anchors_xyxy: Tensor) -> Assignment:
    positions = anchors_xyxy.shape[0]
    return Assignment(
        gt_index=torch.full((positions,), NEGATIVE, device=anchors_xyxy.device),
        iou=anchors_xyxy.new_zeros(positions),
        thresholds=anchors_xyxy.new_zeros(0),
    )


def _centre_distances(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Euclidean distances ``Tensor[N, G]`` from points to box centres, px."""
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    return (points[:, None] - centres[None]).square().sum(-1).sqrt()


def _ignored_cells(anchors_xyxy: Tensor, ignored_boxes_xyxy: Tensor | None, threshold: float) -> Tensor:
    """``BoolTensor[N]``: cells whose anchor lies in an ignored box."""
    if threshold <= 0 or ignored_boxes_xyxy is None or ignored_boxes_xyxy.shape[0] == 0:
        return torch.zeros(anchors_xyxy.shape[0], dtype=torch.bool, device=anchors_xyxy.device)
    return pairwise_iof(anchors_xyxy, ignored_boxes_xyxy).max(dim=1).values > threshold


def _nearest_per_level(distances: Tensor, lengths: Sequence[int]) -> Tensor:
    """Indices ``LongTensor[K, G]`` of the candidates: the ``TOP_K`` nearest positions of every level."""
    candidates = []
    start = 0
    for length in lengths:
        level = distances[start : start + length]
        nearest = level.topk(min(TOP_K, length), dim=0, largest=False).indices
        candidates.append(nearest + start)
        start += length
    return torch.cat(candidates)


def _adaptive_thresholds(iou: Tensor, candidates: Tensor) -> Tensor:
    """``mean + std`` (unbiased) of each box's candidate IoUs, ``Tensor[G]``."""
    candidate_iou = iou.gather(0, candidates)
    return candidate_iou.mean(dim=0) + candidate_iou.std(dim=0)


def _inside(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """``BoolTensor[N, G]``: the point lies in the box by more than the margin on all sides."""
    to_upper_left = points[:, None] - boxes_xyxy[None, :, :2]
    to_lower_right = boxes_xyxy[None, :, 2:] - points[:, None]
    return torch.cat([to_upper_left, to_lower_right], dim=-1).amin(dim=-1) > INSIDE_MARGIN_PX


def _positives(iou: Tensor, candidates: Tensor, thresholds: Tensor, inside: Tensor) -> Tensor:
    """``BoolTensor[N, G]``: candidates over their box's threshold whose point lies inside the box."""
    is_candidate = torch.zeros_like(inside).scatter_(0, candidates, True)  # noqa: FBT003
    return is_candidate & (iou >= thresholds) & inside
