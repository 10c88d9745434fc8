"""Losses of BCKD, which read the teacher at every position.

Source: "Bridging Cross-task Protocol Inconsistency for Distillation in Dense Object Detection", ICCV 2023;
repository TinyTigerPan/BCKD, ``mmdet/models/losses/kd_loss.py`` and ``dense_heads/bckd_head.py``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pipeline.losses.detection import giou_loss


def bckd_cls_loss(cls_logits: Tensor, classes: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor]:
    """Class term ``sum over classes of BCE(x, t) * |t - p|``, and the weight ``max over classes of |t - p|``.

    ``p`` is the sigmoid of the student's logit ``x``, ``t`` the teacher's score. Classes are independent, and
    *both* factors are differentiated, the second with sign 0 where ``p = t``. It is computed image by image,
    gradient and all, so that no more than that is held for the backward pass.

    Args:
        cls_logits: ``Tensor[B, N, C]`` of the student.
        classes: ``Tensor[B, N, C]`` of the teacher: codes, or float logits.
        scores: Score of each code; ``None`` for logits.

    Returns:
        Both ``Tensor[B, N]``; the weight has no gradient.
    """
    loss, weight = _ClassTerm.apply(cls_logits, classes, scores)
    return loss, weight


def bckd_box_loss(student_distances: Tensor, teacher_distances: Tensor) -> Tensor:
    """Box term ``1 - GIoU`` of the boxes around one point; its weight is :func:`bckd_cls_loss`'s.

    Args:
        student_distances: ``Tensor[..., 4]`` to the edges l, t, r, b; any unit.
        teacher_distances: Likewise; gets no gradient.

    Returns:
        ``Tensor[...]``.
    """
    signs = student_distances.new_tensor([-1, -1, 1, 1])
    boxes = [(each * signs).reshape(-1, 4) for each in (student_distances, teacher_distances.detach())]
    return giou_loss(*boxes).reshape(student_distances.shape[:-1])


class _ClassTerm(torch.autograd.Function):
    """Saves the gradient, of the size of the logits, and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, cls_logits: Tensor, classes: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(cls_logits, dtype=torch.float32)
        loss, weight = (gradient.new_empty(cls_logits.shape[:2]) for _ in range(2))
        for image, logits in enumerate(cls_logits):
            x = logits.float()
            codes = classes[image]
            t = codes.float().sigmoid() if scores is None else scores.take(codes.long())
            p = x.sigmoid()
            gap = p - t
            cross_entropy = functional.softplus(x).addcmul_(t, x, value=-1)
            size = gap.abs()
            torch.sum(cross_entropy * size, dim=-1, out=loss[image])
            torch.amax(size, dim=-1, out=weight[image])
            # d/dx = (p - t) |p - t| + BCE sign(p - t) p (1 - p)
            cross_entropy.mul_(p).mul_(p.neg_().add_(1)).mul_(gap.sign())
            torch.addcmul(cross_entropy, gap, size, out=gradient[image])
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(weight)
        return loss, weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, _weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient[..., None], None, None
