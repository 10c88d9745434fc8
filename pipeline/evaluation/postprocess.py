"""From raw outputs to detections, as mmdetection's GFL head does it at test time."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from pipeline.detector.config import GFL_SUPPRESSION, Suppression
from pipeline.detector.head import Integral, RawOutputs
from pipeline.views.box_ops import decode_boxes
from pipeline.views.pyramid import Pyramid


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
    pyramid: Pyramid,
    images_hw: list[tuple[int, int]],
    scale_factors: Tensor,
    *,
    corners_xy: Tensor | None = None,
    suppression: Suppression = GFL_SUPPRESSION,
) -> list[Detections]:
    """Decode, clip to the image's content, rescale to the original image, threshold, NMS class by class.

    Args:
        raw: outputs for a batch of ``B`` images.
        pyramid: where they are predicted.
        images_hw: content sizes of the images (without padding), px.
        scale_factors: ``Tensor[B, 4]``: network px over original px for x1, y1, x2, y2.
        corners_xy: ``Tensor[B, 2]``: where each image's upper left corner lies, px; (0, 0) if not given.
        suppression: which detections stay.
    """
    grid, device = pyramid.grid_of(raw.sizes), raw.cls_logits.device
    points = torch.from_numpy(grid.points).to(device)
    strides = torch.from_numpy(grid.point_strides).to(device)
    corners = (torch.zeros(len(images_hw), 2) if corners_xy is None else corners_xy).to(points)
    factors = scale_factors.to(points)
    integral = Integral(raw.edge_logits.shape[-1] - 1).to(raw.edge_logits.device)
    results = []
    for index, image_hw in enumerate(images_hw):
        scores = raw.cls_logits[index].float().sigmoid()
        kept = best_positions(scores, grid.lengths, suppression.pre_nms_top)
        distances = integral(raw.edge_logits[index, kept]) * strides[kept, None]
        centers = points[kept] - corners[index]
        boxes = clip_boxes_to_image(decode_boxes(centers, distances), image_hw) / factors[index]
        results.append(select_detections(boxes, scores[kept], suppression))
    return results


def best_positions(scores: Tensor, lengths: list[int], most: int) -> Tensor:
    """Indices of the ``most`` best positions of every level."""
    kept = []
    start = 0
    for length in lengths:
        best = scores[start : start + length].amax(dim=1)
        top = best.topk(most).indices if length > most else torch.arange(length, device=best.device)
        kept.append(top + start)
        start += length
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
