"""From raw outputs to detections, as mmdetection's GFL head does it at test time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from pipeline.detector.boxes import clip_boxes, decode_boxes
from pipeline.detector.head import Integral, RawOutputs
from pipeline.regions.grid import level_lengths, pyramid_points

SCORE_THRESHOLD = 0.05
NMS_IOU = 0.6
MAX_DETECTIONS = 100
PRE_NMS_TOP = 1000
"""Positions of a level that are kept before NMS, by their best class (``nms_pre``)."""


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Detections of one image, by descending score."""

    boxes_xyxy: Tensor
    """``Tensor[D, 4]``, px."""
    scores: Tensor
    """``Tensor[D]``."""
    labels: Tensor
    """``LongTensor[D]``."""


def postprocess(
    raw: RawOutputs,
    strides: tuple[int, ...],
    images_hw: list[tuple[int, int]],
    scale_factors: Tensor,
) -> list[Detections]:
    """Decode, clip to the image's content, rescale to the original image, threshold, NMS class by class.

    Args:
        raw: outputs for a batch of ``B`` images.
        strides: of the levels, px.
        images_hw: content sizes of the images (without padding), px.
        scale_factors: ``Tensor[B, 4]``: network px over original px for x1, y1, x2, y2.
    """
    points, point_strides = pyramid_points(raw.sizes, strides, raw.cls_logits.device)
    integral = Integral(raw.edge_logits.shape[-1] - 1).to(raw.edge_logits.device)
    lengths = level_lengths(raw.sizes)
    results = []
    for index, image_hw in enumerate(images_hw):
        scores = raw.cls_logits[index].float().sigmoid()
        kept = best_positions(scores, lengths)
        distances = integral(raw.edge_logits[index, kept]) * point_strides[kept, None]
        boxes = clip_boxes(decode_boxes(points[kept], distances), image_hw)
        results.append(select_detections(boxes / scale_factors[index].to(boxes), scores[kept]))
    return results


def best_positions(scores: Tensor, lengths: list[int]) -> Tensor:
    """Indices of the ``PRE_NMS_TOP`` best positions of every level."""
    kept = []
    start = 0
    for length in lengths:
        best = scores[start : start + length].amax(dim=1)
        top = (
            best.topk(PRE_NMS_TOP).indices
            if length > PRE_NMS_TOP
            else torch.arange(length, device=best.device)
        )
        kept.append(top + start)
        start += length
    return torch.cat(kept)


def select_detections(boxes_xyxy: Tensor, scores: Tensor) -> Detections:
    """Threshold, class-wise NMS, and the best 100 over all classes.

    Args:
        boxes_xyxy: ``Tensor[P, 4]`` px.
        scores: ``Tensor[P, C]``.
    """
    position, label = (scores > SCORE_THRESHOLD).nonzero().unbind(dim=1)
    candidates, candidate_scores = boxes_xyxy[position], scores[position, label]
    kept = batched_nms(candidates, candidate_scores, label, NMS_IOU)[:MAX_DETECTIONS]
    return Detections(boxes_xyxy=candidates[kept], scores=candidate_scores[kept], labels=label[kept])
