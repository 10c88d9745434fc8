"""The points that a store keeps: the main region (ATSS) and the valuable localization region (VLR).

Sources: Zhang et al., "Adaptive Training Sample Selection", CVPR 2020, mmdetection
``core/bbox/assigners/atss_assigner.py``, whose ignore boxes are off by default and left out; Zheng et al.,
"Localization Distillation for Dense Object Detection", CVPR 2022, repository HikariTJU/LD,
``mmdet/models/dense_heads/ld_head.py``.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.regions.config import RegionsConfig
from pipeline.views.box_ops import EPSILON, box_areas, box_intersection, box_iou
from pipeline.views.pyramid import ANCHOR_SCALE, Grid
from pipeline.views.types import NOT_MAIN, KeptPoints

TOP_K = 9
"""Candidates per level and box (``topk`` of the GFL configurations)."""

INSIDE_MARGIN_PX = 0.01
"""A positive's point lies inside its box by more than this on all four sides (reference literal)."""

MAX_POSITIONS = 100_000
"""Of views whose regions are found together, which takes as many operations as one: five of 1333x800."""

ANCHOR_RADIUS_CELLS = ANCHOR_SCALE // 2
"""An anchor reaches this many cells to each side of its point."""


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
    Returns the box of each anchor, ``LongTensor[N]``, -1 where it is negative, and the adaptive IoU threshold
    of each box, ``Tensor[G]``.
    """
    if not len(boxes_xyxy):
        return torch.full((len(anchors_xyxy),), NOT_MAIN), anchors_xyxy.new_zeros(0)
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
    return gt_index.masked_fill_(gt_index == none, NOT_MAIN), thresholds


def inside_boxes(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """``BoolTensor[...]``: points ``Tensor[..., 2]`` are in boxes ``Tensor[..., 4]``, by a margin."""
    to_upper_left = points - boxes_xyxy[:, :2]
    to_lower_right = boxes_xyxy[:, 2:] - points
    return torch.cat([to_upper_left, to_lower_right], dim=-1).amin(dim=-1) > INSIDE_MARGIN_PX


CandidatePairs = tuple[Tensor, Tensor]
"""``LongTensor[M]`` each: pairs of an anchor, by its flat position, and a box."""


def candidate_pairs(grid: Grid, boxes_xyxy: Tensor) -> CandidatePairs:
    """Every pair of an anchor and a box ``Tensor[G, 4]`` px that overlap, and few others of millions."""
    pyramid, device = grid.pyramid, boxes_xyxy.device
    sizes, strides = torch.tensor(grid.sizes, device=device), torch.tensor(pyramid.strides, device=device)
    cells = boxes_xyxy[None] / strides[:, None, None] - pyramid.point_offset
    first = (cells[..., [1, 0]].floor().long() - ANCHOR_RADIUS_CELLS).clamp_(min=0)
    beyond = (cells[..., [3, 2]].ceil().long() + ANCHOR_RADIUS_CELLS + 1).minimum(sizes[:, None])
    return _list_windows(first.flatten(0, 1), (beyond - first).clamp_(min=0).flatten(0, 1), grid)


def _list_windows(first: Tensor, extent: Tensor, grid: Grid) -> CandidatePairs:
    """Cells, row by row, of windows from ``first`` ``(row, column)`` with ``extent`` ``(rows, columns)``."""
    boxes = len(first) // len(grid.sizes)
    widths = first.new_tensor([width for _, width in grid.sizes]).repeat_interleave(boxes)
    corners = first.new_tensor(grid.starts).repeat_interleave(boxes) + first[:, 1]
    window = torch.arange(len(first), device=first.device).repeat_interleave(extent[:, 0])
    starts = corners[window] + _ranges(first[:, 0], extent[:, 0]) * widths[window]
    columns = extent[:, 1][window]
    return _ranges(starts, columns), (window % max(1, boxes)).repeat_interleave(columns)


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """``start, start + 1, ..., start + length - 1`` for all of ``LongTensor[R]``, one after the other."""
    shifts = starts - (lengths.cumsum(0) - lengths)
    return torch.arange(int(lengths.sum()), device=starts.device) + shifts.repeat_interleave(lengths)


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


def vlr_overlap(anchors_xyxy: Tensor, boxes_xyxy: Tensor, vlr: Literal["released", "paper"]) -> Tensor:
    """The overlap ``D`` that bounds the valuable localization region, ``Tensor[...]``.

    ``paper``: ``IoU - d^2/c^2`` (section 3.3). ``released``, most likely the published results': the LD
    repository's ``iou2d_calculator`` divides by the *anchor's area* where the union belongs.
    """
    if vlr == "paper":
        overlap = box_iou(anchors_xyxy, boxes_xyxy)
    else:
        overlap = box_intersection(anchors_xyxy, boxes_xyxy) / box_areas(anchors_xyxy).clamp(min=EPSILON)
    return overlap - center_penalty(anchors_xyxy, boxes_xyxy)


def valuable_weights(
    anchors_xyxy: Tensor,
    pairs: CandidatePairs,
    boxes_xyxy: Tensor,
    thresholds: Tensor,
    regions: RegionsConfig,
) -> Tensor:
    """VLR weights ``Tensor[N]``: the largest IoU over the boxes whose region holds the cell, else 0.

    A cell of the anchors ``Tensor[N, 4]`` is in the region of one of the boxes ``Tensor[G, 4]`` px if
    ``vlr_gamma * t <= D < t``, with ATSS's threshold ``t`` of the box and ``D`` of :func:`vlr_overlap`; with
    ``vlr: inside``, if its point is in the box. ``pairs`` are all that overlap: the weight of others is 0.
    """
    position, box = pairs
    anchors = anchors_xyxy.index_select(0, position)
    boxes, upper = boxes_xyxy.index_select(0, box), thresholds.index_select(0, box)
    if regions.vlr == "inside":
        inside = inside_boxes((anchors[:, :2] + anchors[:, 2:]) / 2, boxes)
    else:
        distance = vlr_overlap(anchors, boxes, regions.vlr)
        inside = (distance >= regions.vlr_gamma * upper) & (distance < upper)
    weights = torch.where(inside, box_iou(anchors, boxes), 0.0)
    return anchors_xyxy.new_zeros(len(anchors_xyxy)).scatter_reduce_(0, position, weights, "amax")


def find_regions(grid: Grid, boxes_xyxy: Sequence[Tensor], regions: RegionsConfig) -> list[KeptPoints]:
    """Both regions of views that share a ``grid``, from the boxes ``Tensor[G, 4]`` px of each: no teacher."""
    size = max(1, MAX_POSITIONS // len(grid))
    runs = (boxes_xyxy[start : start + size] for start in range(0, len(boxes_xyxy), size))
    return [points for run in runs for points in _find_together(grid, run, regions)]


def _find_together(grid: Grid, boxes_xyxy: Sequence[Tensor], regions: RegionsConfig) -> Iterator[KeptPoints]:
    counts, positions = list(map(len, boxes_xyxy)), len(grid)
    boxes = torch.cat(list(boxes_xyxy))
    view = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    anchors = torch.from_numpy(grid.anchors).repeat(len(counts), 1)
    candidates = nearest_candidates(grid, boxes) + positions * view
    assigned, thresholds = assign_atss(anchors, candidates, boxes, counts)
    position, box = candidate_pairs(grid, boxes)
    pairs = position + positions * view[box], box
    weights = valuable_weights(anchors, pairs, boxes, thresholds, regions)
    kept = ((assigned >= 0) | (weights > 0)).nonzero().squeeze(1)
    number, flat = np.divmod(kept.numpy(), positions)
    gt_index, first = assigned[kept].numpy(), np.cumsum(counts) - counts
    main_gt = np.where(gt_index >= 0, gt_index - first[number], NOT_MAIN)
    columns = (*grid.unflatten(flat), main_gt, weights[kept].numpy())
    ends = np.searchsorted(number, np.arange(1, len(counts)))
    for level, position, gt, weight in zip(*(np.split(column, ends) for column in columns), strict=True):
        yield KeptPoints(level=level, position=position, main_gt=gt, valuable_weight=weight)
