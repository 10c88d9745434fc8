"""Loss terms level by level, as the reference records them."""

from dataclasses import dataclass, replace

import torch
from golden_data import PYRAMID, REFERENCE_CONFIG, STRIDES, Arrays
from torch import Tensor

from pipeline.detector.head import RawOutputs
from pipeline.losses.detection import ciou_loss, giou_loss
from pipeline.student.distillation import REFERENCE_IMAGES, DistillationLosses, distillation_losses
from pipeline.training.batches import BatchLabels, TeacherBatch
from pipeline.training.criterion import (
    WEIGHT_SUM_EPSILON,
    BoxLoss,
    DetectionLosses,
    LossNormalizers,
    detection_losses,
    gather_main,
)

TERMS = ("loss_cls", "loss_bbox", "loss_dfl", "loss_ld", "loss_ld_vlr", "loss_kd")
"""Terms of the product, in the order of the reference's components."""

DETECTION_TERMS = TERMS[:3]
VOC_CLASSES = 20


@dataclass(frozen=True, kw_only=True)
class LevelTerms:
    """Weighted and normalized terms: ``Tensor[levels]`` each; their sum is what is minimised."""

    terms: dict[str, Tensor]
    normalizers: LossNormalizers

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()

    @property
    def avg_factor(self) -> Tensor:
        return self.normalizers.weight_sum + WEIGHT_SUM_EPSILON


def box_loss_of(data: Arrays) -> BoxLoss:
    """The VOC configuration trains with CIoU, the COCO one with GIoU."""
    return ciou_loss if int(data["num_classes"]) == VOC_CLASSES else giou_loss


def level_terms(raw: RawOutputs, targets: BatchLabels, soft: TeacherBatch, box_loss: BoxLoss) -> LevelTerms:
    """All terms, in the reference's own normalization.

    It sums LD over the images where this project means them times ``REFERENCE_IMAGES``: the same for a
    normalizer of that many images, whatever the batch.
    """
    main = gather_main(raw, targets)
    normalizers = LossNormalizers.from_batch(targets, main)
    normalizers = replace(normalizers, images=torch.tensor(float(REFERENCE_IMAGES)))
    detection = detection_losses(raw, targets, main, box_loss)
    distillation = distillation_losses(raw, targets, soft, main, REFERENCE_CONFIG)
    rows = [
        _detection_at(detection, targets, level).reduce(normalizers)
        | _distillation_at(distillation, targets, level).reduce(REFERENCE_CONFIG, normalizers)
        for level in range(len(STRIDES))
    ]
    terms = {name: torch.stack([row[name] for row in rows]) for name in TERMS}
    return LevelTerms(terms=terms, normalizers=normalizers)


def _detection_at(losses: DetectionLosses, targets: BatchLabels, level: int) -> DetectionLosses:
    lengths = torch.tensor(PYRAMID.grid_of(targets.sizes).lengths)
    cells = torch.arange(len(STRIDES)).repeat_interleave(lengths) == level
    main = targets.level[targets.main] == level
    return DetectionLosses(cls=losses.cls[:, cells], box=losses.box[main], dfl=losses.dfl[main])


def _distillation_at(losses: DistillationLosses, targets: BatchLabels, level: int) -> DistillationLosses:
    main = losses.main_level == level
    return replace(
        losses,
        ld=losses.ld[main],
        vlr=losses.vlr[targets.level == level],
        kd=losses.kd[main],
        main_level=losses.main_level[main],
    )
