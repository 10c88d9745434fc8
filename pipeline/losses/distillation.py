"""Losses that read a teacher: of Localization Distillation, and of BCKD, which reads it at every position.

Sources: Zheng et al., CVPR 2022; repository HikariTJU/LD, ``mmdet/models/losses/ld_loss.py`` and
``kd_loss.py`` (there: ``knowledge_distillation_kl_div_loss``). "Bridging Cross-task Protocol Inconsistency
for Distillation in Dense Object Detection", ICCV 2023; repository TinyTigerPan/BCKD,
``mmdet/models/losses/kd_loss.py`` and ``dense_heads/bckd_head.py``.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pipeline.views.box_ops import EPSILON


def kd_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Softened KL divergence ``T^2 / n * sum_k q_k (log q_k - log p_k)`` of distributions over ``n`` entries.

    ``p`` and ``q`` are the softmax of student and teacher logits, both ``Tensor[..., n]``, divided by ``T``.
    As in the reference, the sum is *averaged* over the ``n`` bins or classes, so a class-KD term over 4
    classes is 20 times stronger than over COCO's 80 at the same weight. The teacher gets no gradient. A
    ``ValueError`` if the shapes differ, or ``T`` is not above 0; else ``Tensor[...]``, not negative.
    """
    if student_logits.shape != teacher_logits.shape or not temperature > 0:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"expected logits of one shape and T > 0, but got {shapes} and T = {temperature}")
    log_student = functional.log_softmax(student_logits / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return divergence.mean(dim=-1) * temperature**2


def bckd_cls_loss(cls_logits: Tensor, classes: Tensor, scores: Tensor | None) -> tuple[Tensor, Tensor]:
    """Class term ``sum over classes of BCE(x, t) * |t - p|``, and the weight ``max over classes of |t - p|``.

    ``p`` is the sigmoid of the student's logit ``x``, ``t`` the teacher's score. *Both* factors are
    differentiated, the second with sign 0 where ``p = t``. It is computed image by image in the same memory,
    gradient and all, so that no more than that is held for the backward pass.

    ``cls_logits`` are the student's ``Tensor[B, N, C]``, ``classes`` the teacher's: logits, or codes with the
    score of each in ``scores``. Both results are ``Tensor[B, N]``; the weight has no gradient.
    """
    return cast(tuple[Tensor, Tensor], _ClassTerm.apply(cls_logits, classes, scores))


def bckd_box_loss(student_distances: Tensor, teacher_distances: Tensor) -> Tensor:
    """Box term ``1 - GIoU`` of the boxes around one point, ``Tensor[...]``, to be weighted as the class term.

    Both are ``Tensor[..., 4]`` to the edges l, t, r, b, not negative, in any unit; the teacher's get no
    gradient.
    """
    student, teacher = student_distances, teacher_distances.detach()
    # Both boxes have the point inside, so that what they share and what surrounds them is as simple as they.
    intersection, enclosing = _area(torch.minimum(student, teacher)), _area(torch.maximum(student, teacher))
    union = (_area(student) + _area(teacher) - intersection).clamp(min=EPSILON)
    return 2 - intersection / union - union / enclosing.clamp(min=EPSILON)


def _area(distances: Tensor) -> Tensor:
    left, top, right, bottom = distances.unbind(-1)
    return (left + right) * (top + bottom)


def bckd_distances(edge_logits: Tensor) -> Tensor:
    """Means ``Tensor[B, N, 4]``, in strides, of edge distributions ``Tensor[B, N, 4, bins]``.

    They are ``expected_distances``, with the gradient at once: at *every* position the softmax would take
    more time than all else of BCKD's terms.
    """
    return cast(Tensor, _Distances.apply(edge_logits))


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edge_logits: Tensor) -> Tensor:
        gradient = torch.empty_like(edge_logits, dtype=torch.float32)
        means = gradient.new_empty(gradient.shape[:-1])
        bins = torch.arange(gradient.shape[-1], dtype=torch.float32, device=gradient.device)
        ones_bins = torch.stack([torch.ones_like(bins), bins], dim=1)
        for shares, logits, mean in zip(gradient, edge_logits, means, strict=True):
            x = logits.float()
            torch.sub(x, x.amax(dim=-1, keepdim=True), out=shares)
            total, weighted = (shares.exp_() @ ones_bins).unbind(-1)
            torch.div(weighted, total, out=mean)
            # d/dx_k = p_k (k - mean)
            shares.div_(total[..., None]).mul_(bins - mean[..., None])
        ctx.save_for_backward(gradient)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, means_gradient: Tensor) -> Tensor:
        gradient: Tensor = ctx.saved_tensors[0]
        return gradient * means_gradient[..., None]


class _ClassTerm(torch.autograd.Function):
    """Saves the gradient, of the size of the logits, and nothing else."""

    @staticmethod
    def forward(
        ctx: Any, cls_logits: Tensor, classes: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(cls_logits, dtype=torch.float32)
        loss, weight = (gradient.new_empty(cls_logits.shape[:2]) for _ in range(2))
        t, p, gap, size = gradient.new_empty(4, *cls_logits.shape[1:])
        for image, logits in enumerate(cls_logits):
            x, codes = logits.float(), classes[image]
            if scores is None:
                torch.sigmoid(codes.float(), out=t)
            else:  # three times as fast as ``take``
                torch.index_select(scores, 0, codes.flatten().int(), out=t.view(-1))
            torch.sub(torch.sigmoid(x, out=p), t, out=gap)
            torch.amax(torch.abs(gap, out=size), dim=-1, out=weight[image])
            cross_entropy = functional.softplus(x).addcmul_(t, x, value=-1)
            torch.sum(torch.mul(cross_entropy, size, out=t), dim=-1, out=loss[image])
            # d/dx = (p - t) |p - t| + BCE sign(p - t) p (1 - p)
            torch.mul(gap, size, out=gradient[image])
            cross_entropy.mul_(p).mul_(p.neg_().add_(1))
            gradient[image].addcmul_(cross_entropy, gap.sign_())
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(weight)
        return loss, weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_gradient: Tensor, _weight: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * loss_gradient[..., None], None, None
