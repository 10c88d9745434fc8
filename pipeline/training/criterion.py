"""The detection losses of a batch: weights and normalization, once and visibly.

Source: mmdetection ``dense_heads/gfl_head.py``. Differs on purpose: ``loss_bbox`` and ``loss_dfl`` are 0,
not NaN, for a batch without positives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.detector.head import RawOutputs
from pipeline.losses.detection import distribution_focal_loss, giou_loss, sparse_quality_focal_loss
from pipeline.training.batches import BatchLabels
from pipeline.training.processes import World
from pipeline.views.box_ops import box_iou, decode_boxes, encode_distances, expected_distances

CLS_WEIGHT, BOX_WEIGHT, DFL_WEIGHT = 1.0, 2.0, 0.25
"""Loss weights of the GFL configurations."""

TARGET_MARGIN = 0.1
"""Regression targets are clipped to ``reg_max`` minus this, strides (``bbox2distance`` of the reference)."""

WEIGHT_SUM_EPSILON = 1e-6
"""Added to the sum of the box weights (LD head of the reference)."""

Terms = dict[str, Tensor]
"""Weighted loss terms, 0-d each; their sum is what is minimized."""

BoxLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class MainPoints:
    """Student outputs at the ``M`` points of the main region, gathered once for all losses."""

    edge_logits: Tensor
    """``Tensor[M, 4, bins]``."""
    cls_logits: Tensor
    """``Tensor[M, C]``."""
    score: Tensor
    """``Tensor[M]``: best class score, without gradient: the weight of the point's box losses."""


def gather_main(raw: RawOutputs, targets: BatchLabels) -> MainPoints:
    """Outputs at the main region."""
    image, index = targets.image[targets.main], targets.index[targets.main]
    cls_logits = raw.cls_logits[image, index].float()
    return MainPoints(
        edge_logits=raw.edge_logits[image, index].float(),
        cls_logits=cls_logits,
        score=cls_logits.detach().sigmoid().amax(dim=1),
    )


class LossNormalizers(NamedTuple):
    """What the losses of a batch are divided by, without gradient; 0-d, or ``Tensor[levels]``.

    Processes that average their gradients divide by the *mean* of theirs; parts of a batch whose gradients
    are added up, by the *total*: either way the result is the gradient of the whole batch.
    """

    images: Tensor
    positives: Tensor
    """Sum over the images of their positives, at least 1 each."""
    weight_sum: Tensor
    """Sum of the scores over the main region."""
    main_per_level: Tensor
    valuable_per_level: Tensor
    """Points of either region."""

    @classmethod
    def from_batch(cls, targets: BatchLabels, main: MainPoints) -> "LossNormalizers":
        """Normalizers of one process's batch."""
        images, levels = targets.valid.shape[0], len(targets.sizes)
        ones = torch.ones_like(main.score)
        return cls(
            images=main.score.new_full((), images),
            positives=_sums(targets.image[targets.main], images, ones).clamp(min=1).sum(),
            weight_sum=main.score.sum(),
            main_per_level=_sums(targets.level[targets.main], levels, ones),
            valuable_per_level=_sums(targets.level, levels, (targets.valuable_weight > 0).to(ones)),
        )

    @classmethod
    def summed(cls, parts: "Sequence[LossNormalizers]") -> "LossNormalizers":
        """What the losses of the parts of one batch are divided by."""
        return cls(*(torch.stack(values).sum(dim=0) for values in zip(*parts, strict=True)))

    def averaged(self, processes: World) -> "LossNormalizers":
        """What every process divides by."""
        return LossNormalizers(*(processes.mean(value) for value in self))


def _sums(values: Tensor, length: int, weights: Tensor) -> Tensor:
    """How often each of ``0 ... length - 1`` occurs, weighted: ``Tensor[length]``."""
    return weights.new_zeros(length).index_add_(0, values, weights)


def detection_terms(
    raw: RawOutputs,
    targets: BatchLabels,
    main: MainPoints,
    normalizers: LossNormalizers,
    box_loss: BoxLoss = giou_loss,
) -> Terms:
    """GFL's three losses of a batch, weighted and normalized, 0-d each."""
    # In units of the level's stride, as distances are.
    centers = targets.points_xy / targets.strides[:, None]
    goals = targets.boxes_xyxy / targets.strides[:, None]
    predicted = decode_boxes(centers, expected_distances(main.edge_logits))
    quality = box_iou(predicted.detach(), goals)
    _, positions, classes = raw.cls_logits.shape
    row = targets.image[targets.main] * positions + targets.index[targets.main]
    cls = sparse_quality_focal_loss(raw.cls_logits, row * classes + targets.labels, quality) * targets.valid
    box = box_loss(predicted, goals) * main.score
    edge_goals = encode_distances(centers, goals, main.edge_logits.shape[-1] - 1 - TARGET_MARGIN)
    dfl = distribution_focal_loss(main.edge_logits, edge_goals).mean(dim=1) * main.score
    weight_sum = normalizers.weight_sum + WEIGHT_SUM_EPSILON
    return {
        "loss_cls": CLS_WEIGHT * cls.sum() / normalizers.positives,
        "loss_bbox": BOX_WEIGHT * box.sum() / weight_sum,
        "loss_dfl": DFL_WEIGHT * dfl.sum() / weight_sum,
    }
