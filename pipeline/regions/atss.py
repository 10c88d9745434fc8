"""Adaptive Training Sample Selection: the main region of distillation.

Source: Zhang et al., CVPR 2020; mmdetection ``core/bbox/assigners/atss_assigner.py``. Its ignore boxes are
left out: they are off by default there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.views.box_ops import box_iou
from pipeline.views.pyramid import Grid

TOP_K = 9
"""Candidates per level and box (``topk`` of the GFL configurations)."""

INSIDE_MARGIN_PX = 0.01
"""A positive's point lies inside its box by more than this on all four sides (reference literal)."""

NEGATIVE = -1


def nearest_candidates(grid: Grid, boxes_xyxy: Tensor) -> Tensor:
    """Flat positions ``LongTensor[K, G]``: of every level the ``TOP_K`` nearest to the center of each box."""
    centers = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    candidates = []
    for level, (start, length) in enumerate(zip(grid.starts.tolist(), grid.lengths, strict=True)):
        y, x = (torch.from_numpy(axis).to(centers.device) for axis in grid.axes(level))
        across = (x - centers[:, :1]).square_()
        down = (y - centers[:, 1:]).square_()
        # The root stays, though it changes no order: it makes ties, and what a tie decides must not change.
        distances = (across[:, None, :] + down[:, :, None]).sqrt_().flatten(1)
        nearest = distances.topk(min(TOP_K, length), dim=1, largest=False).indices
        candidates.append(nearest.t() + start)
    return torch.cat(candidates)


def assign_atss(
    anchors_xyxy: Tensor, candidates: Tensor, boxes_xyxy: Tensor, counts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Assign anchors ``Tensor[N, 4]`` to boxes ``Tensor[G, 4]``: only the nearest can be positive.

    ``counts`` are the boxes of each view: a mean's last bits depend on how many others are taken with it.

    Returns:
        ``LongTensor[N]``, index of the box a position is positive for, -1 where negative; and
        ``Tensor[G]``, the adaptive IoU threshold of every box.
    """
    if not len(boxes_xyxy):
        gt_index = torch.full((len(anchors_xyxy),), NEGATIVE, device=anchors_xyxy.device)
        return gt_index, anchors_xyxy.new_zeros(0)
    anchors = anchors_xyxy[candidates]
    iou = box_iou(anchors, boxes_xyxy)
    means = [each.contiguous().mean(dim=0) for each in torch.split(iou, list(counts), dim=1)]
    thresholds = torch.cat(means) + iou.std(dim=0)
    positive = (iou >= thresholds) & inside_boxes((anchors[..., :2] + anchors[..., 2:]) / 2, boxes_xyxy)
    positions, boxes, overlaps = candidates[positive], positive.nonzero()[:, 1], iou[positive]
    # A position has the box of the largest IoU, the first of equal ones.
    best = iou.new_zeros(len(anchors_xyxy)).scatter_reduce_(0, positions, overlaps, "amax")
    largest, none = overlaps == best[positions], len(boxes_xyxy)
    gt_index = torch.full_like(best, none, dtype=torch.int64)
    gt_index.scatter_reduce_(0, positions[largest], boxes[largest], "amin")
    return gt_index.masked_fill_(gt_index == none, NEGATIVE), thresholds


def inside_boxes(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """``BoolTensor[...]``: points ``Tensor[..., 2]`` are in boxes ``Tensor[..., 4]``, by a margin."""
    to_upper_left = points - boxes_xyxy[:, :2]
    to_lower_right = boxes_xyxy[:, 2:] - points
    return torch.cat([to_upper_left, to_lower_right], dim=-1).amin(dim=-1) > INSIDE_MARGIN_PX
