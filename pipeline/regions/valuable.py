"""The valuable localization region (VLR), and the points that a store keeps.

Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022;
repository HikariTJU/LD, ``mmdet/models/dense_heads/ld_head.py``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.regions.atss import assign_atss, nearest_candidates
from pipeline.regions.candidate_pairs import CandidatePairs, candidate_pairs
from pipeline.regions.overlap import VlrOverlap, vlr_overlap
from pipeline.views.box_ops import box_iou
from pipeline.views.pyramid import Grid

VLR_LOWER_FRACTION = 0.25
"""The region starts at this fraction of ATSS's threshold (``gamma`` of the paper)."""


@dataclass(frozen=True, kw_only=True)
class ViewRegions:
    """Points of one view that training reads: main region, valuable region, or both.

    ``P`` points in ascending (level, position) order.
    """

    level: Tensor
    """``LongTensor[P]``."""
    position: Tensor
    """``LongTensor[P]``: row-major cell of the level's grid."""
    main_gt: Tensor
    """``LongTensor[P]``: index of the ground-truth box in the main region; -1 outside it."""
    valuable_weight: Tensor
    """``Tensor[P]``: VLR weight, an IoU; 0 outside the valuable region."""


def valuable_weights(
    anchors_xyxy: Tensor,
    pairs: CandidatePairs,
    boxes_xyxy: Tensor,
    thresholds: Tensor,
    overlap: VlrOverlap,
    lower_fraction: float = VLR_LOWER_FRACTION,
) -> Tensor:
    """VLR weights: the largest IoU over the boxes whose region holds the cell, 0 where there is none.

    A cell is in the region of a box if ``lower_fraction * t <= D < t``, with ATSS's threshold ``t`` of
    the box and ``D`` of :func:`vlr_overlap`. A cell can be in the main region too.

    Args:
        anchors_xyxy: ``Tensor[N, 4]`` px.
        pairs: of anchors and boxes; without those that do not overlap, for their weight is 0.
        boxes_xyxy: ``Tensor[G, 4]`` px.
        thresholds: ``Tensor[G]``.
        overlap: which ``D``.
        lower_fraction: where the region starts.

    Returns:
        ``Tensor[N]`` in [0, 1].
    """
    anchors = anchors_xyxy.index_select(0, pairs.position)
    boxes, upper = boxes_xyxy.index_select(0, pairs.box), thresholds.index_select(0, pairs.box)
    distance = vlr_overlap(anchors, boxes, overlap)
    inside = (distance >= lower_fraction * upper) & (distance < upper)
    weights = torch.where(inside, box_iou(anchors, boxes), 0.0)
    return anchors_xyxy.new_zeros(len(anchors_xyxy)).scatter_reduce_(0, pairs.position, weights, "amax")


def find_regions(
    grid: Grid,
    boxes_xyxy: Tensor,
    overlap: VlrOverlap,
    lower_fraction: float = VLR_LOWER_FRACTION,
) -> ViewRegions:
    """Both regions of a view, from its geometry and its boxes alone: no teacher is needed.

    Args:
        grid: of the view after its own padding, which has only valid cells.
        boxes_xyxy: ``Tensor[G, 4]`` in view coordinates, px.
        overlap: definition of the valuable region.
        lower_fraction: where the valuable region starts, as a fraction of ATSS's threshold.
    """
    anchors = torch.from_numpy(grid.anchors).to(boxes_xyxy.device)
    assignment = assign_atss(anchors, nearest_candidates(grid, boxes_xyxy), boxes_xyxy)
    pairs = candidate_pairs(grid, boxes_xyxy)
    weights = valuable_weights(anchors, pairs, boxes_xyxy, assignment.thresholds, overlap, lower_fraction)
    kept = ((assignment.gt_index >= 0) | (weights > 0)).nonzero().squeeze(1)
    level, position = (torch.from_numpy(part).to(kept) for part in grid.unflatten(kept.cpu().numpy()))
    return ViewRegions(
        level=level,
        position=position,
        main_gt=assignment.gt_index[kept],
        valuable_weight=weights[kept],
    )
