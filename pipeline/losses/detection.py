"""Losses of Generalized Focal Loss detectors.

Source: Li et al., "Generalized Focal Loss", NeurIPS 2020; mmdetection ``losses/gfocal_loss.py`` and
``losses/iou_loss.py``.
"""

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torchvision.ops import distance_box_iou_loss

from pipeline.views.box_ops import EPSILON, box_areas

QFL_BETA = 2.0
"""Exponent of the quality focal loss's modulating factor (``beta`` of the GFL configurations)."""
PART_ENTRIES = 2**21
"""Class logits of which quality focal loss is computed at a time: 8 MB, of one image at 1333x800."""
ALIGNED_ROWS = 64


def quality_focal_loss(cls_logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss ``|y - sigmoid(x)|^beta * BCE(x, y)``, summed over the classes: ``Tensor[P]``.

    ``cls_logits`` are ``Tensor[P, C]`` before the sigmoid; ``quality`` is ``Tensor[P, C]``: IoU of prediction
    and target at the target's class, 0 elsewhere.
    """
    cross_entropy = functional.binary_cross_entropy_with_logits(cls_logits, quality, reduction="none")
    modulation = (quality - cls_logits.sigmoid()).abs().pow(QFL_BETA)
    return (cross_entropy * modulation).sum(dim=-1)


def sparse_quality_focal_loss(cls_logits: Tensor, entry: Tensor, quality: Tensor) -> Tensor:
    """:func:`quality_focal_loss` of ``Tensor[B, N, C]`` in any precision: ``Tensor[B, N]`` float32.

    ``quality`` is ``Tensor[M]`` at the flat places ``entry``, ``LongTensor[M]``, and 0 elsewhere. Both passes
    go part by part, and the backward pass computes the loss again, so that nothing but logits and gradient is
    as large. Values and gradients are those of the whole.
    """
    return cast(Tensor, _InParts.apply(cls_logits, entry, quality))


class _InParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cls_logits: Tensor, entry: Tensor, quality: Tensor) -> Tensor:
        ctx.save_for_backward(cls_logits, entry, quality)
        losses = [quality_focal_loss(x.float(), goal) for x, goal in _parts(cls_logits, entry, quality)]
        return torch.cat(losses).view(cls_logits.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor) -> tuple[Tensor, None, None]:
        cls_logits, entry, quality = ctx.saved_tensors
        gradient, start, above = torch.empty_like(cls_logits), 0, loss_gradient.flatten()
        for x, goal in _parts(cls_logits, entry, quality):
            rows = slice(start, start + len(x))
            with torch.enable_grad():
                loss = quality_focal_loss(x.requires_grad_().float(), goal)
            (gradient.view(-1, x.shape[1])[rows],) = torch.autograd.grad(loss, x, above[rows])
            start = rows.stop
        return gradient, None, None


def _parts(cls_logits: Tensor, entry: Tensor, quality: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of the logits, and the quality at all their entries."""
    classes, first = cls_logits.shape[-1], 0
    # A vectorized kernel rounds what is left over otherwise: parts leave over what the whole does.
    size = max(1, PART_ENTRIES // classes // ALIGNED_ROWS) * ALIGNED_ROWS
    for rows in torch.split(cls_logits.detach().view(-1, classes), size):
        # Entries of other parts go where none is: to leave them out would make the host wait for the device.
        inside = (entry >= first) & (entry < first + rows.numel())
        goal = quality.new_zeros(rows.numel() + 1)
        goal[torch.where(inside, entry - first, rows.numel())] = quality
        yield rows, goal[:-1].view(rows.shape)
        first += rows.numel()


def distribution_focal_loss(edge_logits: Tensor, distances: Tensor) -> Tensor:
    """Distribution focal loss: cross entropy to the two bins next to the target, linearly shared.

    Of ``Tensor[..., bins]`` and ``Tensor[...]`` in strides, in ``[0, bins - 1)``: ``Tensor[...]``.
    """
    left = distances.long()
    fraction = distances - left
    log_probabilities = edge_logits.log_softmax(dim=-1)
    left_term = log_probabilities.gather(-1, left[..., None]).squeeze(-1)
    right_term = log_probabilities.gather(-1, left[..., None] + 1).squeeze(-1)
    return -(left_term * (1 - fraction) + right_term * fraction)


def giou_loss(predicted_xyxy: Tensor, target_xyxy: Tensor) -> Tensor:
    """``1 - GIoU`` (Rezatofighi et al., CVPR 2019) of two ``Tensor[P, 4]``, row by row: ``Tensor[P]``."""
    intersection, union = _intersection_union(predicted_xyxy, target_xyxy)
    upper_left = torch.minimum(predicted_xyxy[:, :2], target_xyxy[:, :2])
    lower_right = torch.maximum(predicted_xyxy[:, 2:], target_xyxy[:, 2:])
    enclosing = _area((lower_right - upper_left).clamp(min=0)).clamp(min=EPSILON)
    return 1 - (intersection / union - (enclosing - union) / enclosing)


def ciou_loss(predicted_xyxy: Tensor, target_xyxy: Tensor) -> Tensor:
    """``1 - CIoU`` (Zheng et al., AAAI 2020) of two ``Tensor[P, 4]``, row by row: ``Tensor[P]``.

    The aspect term ``v^2 / (1 - IoU + v)`` is 0, not NaN as in the reference, where the boxes are equal.
    """
    aspect = 4 / math.pi**2 * (_aspect_angle(target_xyxy) - _aspect_angle(predicted_xyxy)).square()
    intersection, union = _intersection_union(predicted_xyxy, target_xyxy)
    denominator = 1 - intersection / union + aspect
    penalty = torch.where(denominator > 0, aspect.square() / denominator.where(denominator > 0, 1), 0)
    return distance_box_iou_loss(predicted_xyxy, target_xyxy) + penalty


def _intersection_union(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    upper_left = torch.maximum(boxes1_xyxy[:, :2], boxes2_xyxy[:, :2])
    lower_right = torch.minimum(boxes1_xyxy[:, 2:], boxes2_xyxy[:, 2:])
    intersection = _area((lower_right - upper_left).clamp(min=0))
    union = box_areas(boxes1_xyxy) + box_areas(boxes2_xyxy) - intersection
    return intersection, union.clamp(min=EPSILON)


class _Area(torch.autograd.Function):
    """``sides_wh.prod(dim=-1)``, bit for bit, whose gradient on a GPU does not wait to count zeros."""

    @staticmethod
    def forward(ctx: Any, sides_wh: Tensor) -> Tensor:
        area = sides_wh[:, 0] * sides_wh[:, 1]
        ctx.save_for_backward(sides_wh, area)
        return area

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        sides_wh, area = ctx.saved_tensors
        # Only where no side at all is zero torch divides the product by each.
        others = torch.where((sides_wh == 0).any(), sides_wh.flip(-1), area[:, None] / sides_wh)
        return gradient[:, None] * others


def _area(sides_wh: Tensor) -> Tensor:
    return cast(Tensor, _Area.apply(sides_wh))


def _aspect_angle(boxes_xyxy: Tensor) -> Tensor:
    width = boxes_xyxy[:, 2] - boxes_xyxy[:, 0]
    height = boxes_xyxy[:, 3] - boxes_xyxy[:, 1] + EPSILON
    return torch.atan(width / height)
