"""The oracle of the regions: every anchor with every box, as first written and held against the reference.

It costs a hundred times what ``pipeline.regions`` does, which must give the same to the last bit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.regions.atss import INSIDE_MARGIN_PX, NEGATIVE, TOP_K
from pipeline.regions.config import RegionsConfig, Vlr
from pipeline.views.box_ops import EPSILON, box_areas
from pipeline.views.pyramid import Grid
from pipeline.views.types import KeptPoints


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


def center_penalty(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """``d^2 / c^2`` of DIoU: squared center distance over squared enclosing diagonal, ``Tensor[N, G]``."""
    upper_left = torch.minimum(boxes1_xyxy[:, None, :2], boxes2_xyxy[None, :, :2])
    lower_right = torch.maximum(boxes1_xyxy[:, None, 2:], boxes2_xyxy[None, :, 2:])
    diagonal = (lower_right - upper_left).square().sum(-1)
    centers1 = boxes1_xyxy[:, None, :2] + boxes1_xyxy[:, None, 2:]
    centers2 = boxes2_xyxy[None, :, :2] + boxes2_xyxy[None, :, 2:]
    return (centers2 - centers1).square().sum(-1) / 4 / diagonal.clamp(min=EPSILON)


def pairwise_vlr_overlap(anchors_xyxy: Tensor, boxes_xyxy: Tensor, vlr: Vlr) -> Tensor:
    """The overlap ``D`` that bounds the valuable localization region, ``Tensor[N, G]``.

    ``paper``: ``IoU - d^2/c^2`` (LD paper, CVPR 2022, section 3.3). ``released``: the LD repository's
    ``iou2d_calculator`` divides the intersection by the *anchor's area* where the union belongs;
    the published results were most likely trained with it.
    """
    first = pairwise_iof if vlr == "released" else pairwise_iou
    return first(anchors_xyxy, boxes_xyxy) - center_penalty(anchors_xyxy, boxes_xyxy)


def assign_densely(anchors_xyxy: Tensor, lengths: Sequence[int], boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """The box ``LongTensor[N]`` that each position is positive for, or -1, and each box's threshold.

    Args:
        anchors_xyxy: ``Tensor[N, 4]`` px, level after level.
        lengths: positions of each level, summing to ``N``.
        boxes_xyxy: ``Tensor[G, 4]`` px.
    """
    if boxes_xyxy.shape[0] == 0:
        return torch.full((len(anchors_xyxy),), NEGATIVE), torch.zeros(0)
    iou = pairwise_iou(anchors_xyxy, boxes_xyxy)
    points = (anchors_xyxy[:, :2] + anchors_xyxy[:, 2:]) / 2
    candidates = _nearest_per_level(_center_distances(points, boxes_xyxy), lengths)
    thresholds = _adaptive_thresholds(iou, candidates)
    positive = _positives(iou, candidates, thresholds, _inside(points, boxes_xyxy))
    best = torch.where(positive, iou, -torch.inf).argmax(dim=1)
    return torch.where(positive.any(dim=1), best, NEGATIVE), thresholds


def _center_distances(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Euclidean distances ``Tensor[N, G]`` from points to box centers, px."""
    centers = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    return (points[:, None] - centers[None]).square().sum(-1).sqrt()


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


def weigh_densely(
    anchors_xyxy: Tensor, boxes_xyxy: Tensor, thresholds: Tensor, regions: RegionsConfig
) -> Tensor:
    """VLR weights ``Tensor[N]``: the largest IoU over the boxes whose region holds the cell, else 0."""
    if boxes_xyxy.shape[0] == 0:
        return anchors_xyxy.new_zeros(anchors_xyxy.shape[0])
    distance = pairwise_vlr_overlap(anchors_xyxy, boxes_xyxy, regions.vlr)
    inside = (distance >= regions.vlr_gamma * thresholds) & (distance < thresholds)
    return torch.where(inside, pairwise_iou(anchors_xyxy, boxes_xyxy), 0.0).amax(dim=1)


def dense_regions(grid: Grid, boxes_xyxy: Tensor, regions: RegionsConfig) -> KeptPoints:
    """What ``find_regions`` must return."""
    lengths = grid.lengths
    anchors = torch.from_numpy(grid.anchors)
    gt_index, thresholds = assign_densely(anchors, lengths, boxes_xyxy)
    weights = weigh_densely(anchors, boxes_xyxy, thresholds, regions)
    kept = ((gt_index >= 0) | (weights > 0)).nonzero().squeeze(1)
    level = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    position = torch.cat([torch.arange(length) for length in lengths])
    return KeptPoints(
        level=level[kept].numpy(),
        position=position[kept].numpy(),
        main_gt=gt_index[kept].numpy(),
        valuable_weight=weights[kept].numpy(),
    )
