"""From raw outputs to detections, as mmdetection's GFL head does it at test time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from pipeline.detector.config import Suppression
from pipeline.detector.head import RawOutputs
from pipeline.detector.model import ModelSpec
from pipeline.views.box_ops import decode_boxes, expected_distances
from pipeline.views.geometry import ViewGeometry, scale_factors


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections of one image, by descending score."""

    boxes_xyxy: Tensor
    """``Tensor[D, 4]``, px."""
    scores: Tensor
    """``Tensor[D]``."""
    labels: Tensor
    """``LongTensor[D]``."""


def decode_views(raw: RawOutputs, spec: ModelSpec, geometries: Sequence[ViewGeometry]) -> list[Detections]:
    """Detections in px of the original images, from a model's outputs for their views.

    Decodes, clips to the image's content, rescales to the original image, thresholds, NMS class by class.
    """
    grid, device = spec.pyramid.grid_of(raw.sizes), raw.cls_logits.device
    points = torch.from_numpy(grid.points).to(device)
    strides = torch.from_numpy(grid.point_strides).to(device)
    corners = torch.tensor([view.content_top_left[::-1] for view in geometries]).to(points)
    factors = torch.from_numpy(np.stack([scale_factors(view) for view in geometries])).to(points)
    results = []
    for index, view in enumerate(geometries):
        scores = raw.cls_logits[index].float().sigmoid()
        kept = best_positions(scores, grid.lengths, spec.suppression.pre_nms_top)
        distances = expected_distances(raw.edge_logits[index, kept].float()) * strides[kept, None]
        boxes = decode_boxes(points[kept] - corners[index], distances)
        boxes = clip_boxes_to_image(boxes, view.content_hw) / factors[index]
        results.append(select_detections(boxes, scores[kept], spec.suppression))
    return results


def best_positions(scores: Tensor, lengths: list[int], most: int) -> Tensor:
    """Indices of the ``most`` best positions of every level."""
    kept, start = [], 0
    for best in torch.split(scores.amax(dim=1), lengths):
        top = best.topk(most).indices if len(best) > most else torch.arange(len(best), device=best.device)
        kept.append(top + start)
        start += len(best)
    return torch.cat(kept)


def select_detections(boxes_xyxy: Tensor, scores: Tensor, suppression: Suppression) -> Detections:
    """Threshold, class-wise NMS, and the best ones over all classes.

    Args:
        boxes_xyxy: ``Tensor[P, 4]`` px.
        scores: ``Tensor[P, C]``.
        suppression: threshold, overlap and number.
    """
    position, label = (scores > suppression.score_threshold).nonzero().unbind(dim=1)
    candidates, candidate_scores = boxes_xyxy[position], scores[position, label]
    kept = batched_nms(candidates, candidate_scores, label, suppression.iou)[: suppression.max_detections]
    return Detections(boxes_xyxy=candidates[kept], scores=candidate_scores[kept], labels=label[kept])
