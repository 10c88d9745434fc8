"""The oracle of the regions: every anchor with every box, as first written and held against the reference.

It costs a hundred times what ``pipeline.regions`` does, which must give the same to the last bit.
"""

import torch
from torch import Tensor

from pipeline.regions.config import RegionsConfig
from pipeline.regions.points import INSIDE_MARGIN_PX, TOP_K, vlr_overlap
from pipeline.views.box_ops import box_iou
from pipeline.views.pyramid import Grid
from pipeline.views.types import NOT_MAIN, KeptPoints


def dense_regions(grid: Grid, boxes_xyxy: Tensor, regions: RegionsConfig) -> KeptPoints:
    """What ``find_regions`` must return; the golden functions hold the overlaps of pairs."""
    anchors = torch.from_numpy(grid.anchors)
    gt_index, weights = torch.full((len(anchors),), NOT_MAIN), torch.zeros(len(anchors))
    if len(boxes_xyxy):
        iou = box_iou(anchors[:, None], boxes_xyxy)
        points, centers = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (anchors, boxes_xyxy))
        candidates = _nearest((points[:, None] - centers).square().sum(-1).sqrt(), grid)
        overlaps = iou.gather(0, candidates)
        thresholds = overlaps.mean(dim=0) + overlaps.std(dim=0)
        positive = torch.zeros_like(iou).scatter_(0, candidates, 1).bool() & (iou >= thresholds)
        inside = _inside(points, boxes_xyxy)
        positive &= inside
        best = torch.where(positive, iou, -torch.inf).argmax(dim=1)
        gt_index = torch.where(positive.any(dim=1), best, NOT_MAIN)
        if regions.vlr != "inside":
            distance = vlr_overlap(anchors[:, None], boxes_xyxy, regions.vlr)
            inside = (distance >= regions.vlr_gamma * thresholds) & (distance < thresholds)
        weights = torch.where(inside, iou, 0.0).amax(dim=1)
    kept = ((gt_index >= 0) | (weights > 0)).nonzero().squeeze(1)
    level, position = grid.unflatten(kept.numpy())
    return KeptPoints(
        level=level,
        position=position,
        main_gt=gt_index[kept].numpy(),
        valuable_weight=weights[kept].numpy(),
    )


def _nearest(distances: Tensor, grid: Grid) -> Tensor:
    """``LongTensor[K, G]``: the ``TOP_K`` nearest positions of every level by distances ``Tensor[N, G]``."""
    nearest = []
    for level, start in zip(distances.split(grid.lengths), grid.starts.tolist(), strict=True):
        nearest.append(level.topk(min(TOP_K, len(level)), dim=0, largest=False).indices + start)
    return torch.cat(nearest)


def _inside(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """``BoolTensor[N, G]``: the point lies in the box by more than the margin on all sides."""
    to_upper_left, to_lower_right = points[:, None] - boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - points[:, None]
    return torch.cat([to_upper_left, to_lower_right], dim=-1).amin(dim=-1) > INSIDE_MARGIN_PX
