"""Loss terms level by level, as the reference records them."""

from dataclasses import replace
from typing import NamedTuple

import torch
from golden_data import PYRAMID, REFERENCE_CONFIG, STRIDES, Arrays
from torch import Tensor

from pipeline.detector.head import RawOutputs
from pipeline.losses.detection import ciou_loss, giou_loss
from pipeline.student.targets import TeacherBatch
from pipeline.student.train import REFERENCE_IMAGES, distillation_terms
from pipeline.training.batches import BatchLabels
from pipeline.training.criterion import BoxLoss, LossNormalizers, detection_terms, gather_main

TERMS = ("loss_cls", "loss_bbox", "loss_dfl", "loss_ld", "loss_ld_vlr", "loss_kd")
"""Terms of the product, in the order of the reference's components."""

VOC_CLASSES = 20


class LevelTerms(NamedTuple):
    """Weighted and normalized terms: ``Tensor[levels]`` each; their sum is what is minimized."""

    terms: dict[str, Tensor]
    normalizers: LossNormalizers

    @property
    def total(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


def box_loss_of(data: Arrays) -> BoxLoss:
    """The VOC configuration trains with CIoU, the COCO one with GIoU."""
    return ciou_loss if int(data["num_classes"]) == VOC_CLASSES else giou_loss


def level_terms(raw: RawOutputs, targets: BatchLabels, soft: TeacherBatch, box_loss: BoxLoss) -> LevelTerms:
    """All terms, in the reference's own normalization: LD summed, as over ``REFERENCE_IMAGES`` images."""
    normalizers = LossNormalizers.from_batch(targets, gather_main(raw, targets))
    normalizers = normalizers._replace(images=torch.tensor(float(REFERENCE_IMAGES)))
    rows = []
    for level in range(len(STRIDES)):
        labels, teacher = at_level(targets, soft, level)
        main = gather_main(raw, labels)
        distilled = distillation_terms(raw, labels, teacher, main, normalizers, REFERENCE_CONFIG)
        rows.append(detection_terms(raw, labels, main, normalizers, box_loss) | distilled)
    return LevelTerms({name: torch.stack([row[name] for row in rows]) for name in TERMS}, normalizers)


def at_level(targets: BatchLabels, teacher: TeacherBatch, level: int) -> tuple[BatchLabels, TeacherBatch]:
    """A batch in which no other level has a point or a valid cell; of a lossless teacher."""
    lengths = torch.tensor(PYRAMID.grid_of(targets.sizes).lengths)
    cells = torch.arange(len(STRIDES)).repeat_interleave(lengths) == level
    kept, number = targets.level == level, torch.full_like(targets.level, -1)
    number[targets.main] = torch.arange(len(targets.main))
    main = kept[targets.main]
    points = {name: getattr(targets, name)[kept] for name in ("image", "index", "level", "valuable_weight")}
    objects = {n: getattr(targets, n)[main] for n in ("points_xy", "strides", "boxes_xyxy", "labels")}
    places = torch.nonzero(number[kept] >= 0)[:, 0]
    labels = replace(targets, valid=targets.valid & cells, main=places, **points, **objects)
    return labels, replace(teacher, edges=teacher.edges[kept], classes=teacher.classes[main])
