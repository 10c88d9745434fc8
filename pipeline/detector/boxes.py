"""Boxes from edge distances, and back."""

import torch
from torch import Tensor


def decode_boxes(points: Tensor, distances: Tensor) -> Tensor:
    """Boxes around points; both in the same unit.

    Args:
        points: ``Tensor[..., 2]`` as ``(x, y)``.
        distances: ``Tensor[..., 4]`` to the edges l, t, r, b.

    Returns:
        ``Tensor[..., 4]`` as ``(x1, y1, x2, y2)``.
    """
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def encode_distances(points: Tensor, boxes_xyxy: Tensor, limit: float | None = None) -> Tensor:
    """Distances ``Tensor[..., 4]`` (l, t, r, b) from points to edges, clamped to ``[0, limit]`` if given."""
    distances = torch.cat([points - boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - points], dim=-1)
    return distances if limit is None else distances.clamp(min=0, max=limit)


def clip_boxes(boxes_xyxy: Tensor, image_hw: tuple[float, float]) -> Tensor:
    """Boxes ``Tensor[..., 4]`` clipped to an image of ``(height, width)`` px."""
    height, width = image_hw
    limits = boxes_xyxy.new_tensor([width, height, width, height])
    return torch.minimum(boxes_xyxy.clamp(min=0), limits)
