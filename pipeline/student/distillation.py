"""The distillation terms of a batch: weights and normalization, once and visibly.

Source: repository HikariTJU/LD, ``mmdet/models/dense_heads/ld_head.py`` (``loss_single``).

The reference divides ``loss_ld`` and ``loss_ld_vlr`` by nothing that grows with the batch: they are sums
over one GPU's images, so they grow with the images per GPU, of which the published runs have 2. Here they
are means over the images times 2 (:data:`REFERENCE_IMAGES`): equal to the reference at its batch, and the
same for any other. The class KD on the valuable region is computed there, too, and multiplied by zero; the
published run on PASCAL VOC had it.

BCKD's terms are divided by what divides ``loss_cls``, as in their reference (repository TinyTigerPan/BCKD):
the positives of the whole batch, at least 1 an image. There a level on which no image of the GPU's batch has
a positive is left out, so that an image's gradient depends on which others are beside it. Here no level is:
on one without objects the teacher's scores are next to 0, and teach just that.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.detector.head import RawOutputs
from pipeline.losses.bckd import bckd_box_loss, bckd_cls_loss, bckd_distances
from pipeline.losses.config import DistillationConfig
from pipeline.losses.distillation import kd_divergence
from pipeline.training.batches import BatchLabels, TeacherBatch
from pipeline.training.criterion import LossNormalizers, MainPoints

REFERENCE_IMAGES = 2
"""Images per GPU of the published runs, over which the reference sums."""

MIN_COUNT = 1e-6
"""Of points on a level, where something is divided by their number."""

VALUABLE_DIVISOR = 4.0
"""The reference divides the VLR term by 16 and the main term by 4, both summed over the 4 edges."""


@dataclass(frozen=True, kw_only=True)
class DistillationLosses:
    """Unreduced distillation losses, loss weights not applied."""

    ld: Tensor
    """``Tensor[M]``: KL of the edges, mean over the edges, times the student's own score."""
    vlr: Tensor
    """``Tensor[P]``: KL of the edges, mean over the edges, times VLR weight over 4; 0 outside the region."""
    kd: Tensor
    """``Tensor[M]``: KL of the classes."""
    vlr_kd: Tensor
    """``Tensor[P]``: KL of the classes; 0 outside the valuable region."""
    main_level: Tensor
    """``LongTensor[M]``: level of each main-region point."""
    level: Tensor
    """``LongTensor[P]``: level of each point."""
    bckd_cls: Tensor
    """``Tensor[B, N]``: BCKD's class term, 0 at invalid cells."""
    bckd_box: Tensor
    """``Tensor[B, N]``: BCKD's box term with its weight, 0 at invalid cells."""

    def reduce(self, config: DistillationConfig, normalizers: LossNormalizers) -> dict[str, Tensor]:
        """The weighted and normalized terms, 0-d each.

        The reference averages class KD level by level and then sums the levels.
        """
        per_image = REFERENCE_IMAGES / normalizers.images
        per_level = 1 / normalizers.main_per_level[self.main_level]
        # A level may have points of the main region alone; an average over processes may be below 1.
        per_valuable = 1 / normalizers.valuable_per_level[self.level].clamp(min=MIN_COUNT)
        vlr_kd = {"loss_kd_vlr": config.vlr_kd_weight * (self.vlr_kd * per_valuable).sum()}
        bckd = {
            "loss_bckd_cls": config.bckd_cls_weight * self.bckd_cls.sum() / normalizers.positives,
            "loss_bckd_box": config.bckd_box_weight * self.bckd_box.sum() / normalizers.positives,
        }
        return {
            "loss_ld": config.ld_weight * self.ld.sum() * per_image,
            "loss_ld_vlr": config.vlr_weight * self.vlr.sum() * per_image,
            "loss_kd": config.kd_weight * (self.kd * per_level).sum(),
            **(vlr_kd if config.vlr_kd_weight else {}),
            **(bckd if config.reads_dense else {}),
        }


def distillation_losses(
    raw: RawOutputs,
    targets: BatchLabels,
    teacher: TeacherBatch,
    main: MainPoints,
    config: DistillationConfig,
) -> DistillationLosses:
    """Distillation losses of a batch; terms of weight 0 are left out (empty)."""
    reads_edges = config.ld_weight > 0 or config.vlr_weight > 0
    teacher_edges = teacher.edge_logits() if reads_edges else raw.edge_logits[:0]
    temperature = config.ld_temperature
    none = raw.edge_logits.new_zeros(0, dtype=torch.float32)
    ld, vlr, kd, vlr_kd = none, none, none, none
    if config.ld_weight:
        ld = (
            kd_divergence(main.edge_logits, teacher_edges[targets.main], temperature).mean(dim=1) * main.score
        )
    if config.vlr_weight:
        student_edges = raw.edge_logits[targets.image, targets.index].float()
        divergence = kd_divergence(student_edges, teacher_edges, temperature).mean(dim=1)
        vlr = divergence * targets.valuable_weight / VALUABLE_DIVISOR
    teacher_classes = teacher.cls_logits() if config.kd_weight or config.vlr_kd_weight else none
    if config.kd_weight:
        kd = kd_divergence(main.cls_logits, targets.at_main(teacher_classes), config.kd_temperature)
    if config.vlr_kd_weight:
        student_classes = raw.cls_logits[targets.image, targets.index].float()
        divergence = kd_divergence(student_classes, teacher_classes, config.kd_temperature)
        vlr_kd = divergence * (targets.valuable_weight > 0)
    bckd_cls, bckd_box = _bckd(raw, targets, teacher, config) if config.reads_dense else (none, none)
    return DistillationLosses(
        ld=ld,
        vlr=vlr,
        kd=kd,
        vlr_kd=vlr_kd,
        main_level=targets.level[targets.main] if config.kd_weight else targets.level[:0],
        level=targets.level if config.vlr_kd_weight else targets.level[:0],
        bckd_cls=bckd_cls,
        bckd_box=bckd_box,
    )


def _bckd(
    raw: RawOutputs, targets: BatchLabels, teacher: TeacherBatch, config: DistillationConfig
) -> tuple[Tensor, Tensor]:
    """BCKD's class and box terms, ``Tensor[B, N]`` each."""
    dense = teacher.dense
    assert dense is not None, "the source reads the teacher at all positions"
    cls, weight = bckd_cls_loss(raw.cls_logits, dense.classes, dense.scores)
    if not config.bckd_box_weight:
        return cls * targets.valid, cls.new_zeros(0)
    boxes = bckd_box_loss(bckd_distances(raw.edge_logits), dense.distances.float() * dense.unit)
    return cls * targets.valid, boxes * weight * targets.valid
