"""The recorded training step, taken by this project on any device and in any precision.

The recorded step has feature imitation switched on, whose gradient reaches neck and backbone. The product
has no such term; this module adds its own, from the live teacher's features, so that the gradients of all
parameters can be compared.
"""

import json
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from golden_data import (
    FOLDER,
    PYRAMID,
    Arrays,
    boxes_of,
    image_count,
    labeled_views,
    load,
    lossless_targets,
    size_of,
    targets_of,
)
from golden_losses import LevelTerms, level_terms
from golden_models import recipe_detector
from torch import Tensor

from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.config import NetworkPrecision
from pipeline.detector.device import autocast
from pipeline.detector.gfl import GFL
from pipeline.detector.head import RawOutputs, flatten_levels
from pipeline.losses.detection import giou_loss
from pipeline.training.config import TrainConfig
from pipeline.training.step import build_optimizer
from pipeline.views.box_ops import box_iou

CLASSES = 80
IMITATION_WEIGHT = 2.0
IMITATED_FRACTION = 0.5
"""A cell is imitated if its anchor's IoU with a box exceeds this fraction of the box's best."""

FLOAT16_SCALE = 1024.0
"""Of the loss, so that small gradients are not zero; divided out of them again."""


class Step(NamedTuple):
    """The recorded step, and this project's student after it and state before it."""

    data: Arrays
    description: dict[str, Any]
    student: GFL
    before: dict[str, Tensor]
    levels: LevelTerms
    imitation: Tensor


def imitation_loss(
    data: Arrays, main_per_level: Tensor, student: list[Tensor], teacher: list[Tensor]
) -> Tensor:
    """The reference's fine-grained feature imitation, 0 on a level without positives: ``Tensor[levels]``."""
    losses = []
    regions = torch.stack([imitated(data, image) for image in range(image_count(data))])
    lengths = PYRAMID.grid(size_of(data["batch_hw"])).lengths
    for level, region in enumerate(regions.split(lengths, dim=1)):
        error = (student[level].float() - teacher[level]).square().permute(0, 2, 3, 1).flatten(1, 2)
        used = bool(main_per_level[level]) and bool(region.any())
        losses.append(IMITATION_WEIGHT * error[region].mean() if used else error.new_zeros(()))
    return torch.stack(losses)


def imitated(data: Arrays, image: int) -> Tensor:
    """``BoolTensor[N]``: the fine-grained imitation region of an image in the batch's grid."""
    padded_hw = size_of(data["pad_hw"][image])
    anchors = torch.from_numpy(PYRAMID.grid(padded_hw).anchors)
    iou = box_iou(anchors[:, None], boxes_of(data, image))
    valid = torch.from_numpy(PYRAMID.grid(size_of(data["batch_hw"])).valid(padded_hw))
    region = valid.clone()
    region[valid] = (iou > IMITATED_FRACTION * iou.amax(dim=0)).any(dim=1)
    return region


def run_step(device: torch.device, precision: NetworkPrecision = "float32") -> Step:
    """Take the step; everything recorded stays on the host."""
    data = load(FOLDER / "e2e.npz")
    description = json.loads((FOLDER / "e2e.json").read_text())
    student = recipe_detector(description["student"].split()[0], description["student_salt"], CLASSES)
    teacher = recipe_detector(description["teacher"].split()[0], description["teacher_salt"], CLASSES)
    freeze_stages(student.backbone, 1)
    student.train()
    set_norms_to_eval(student, frozen_only=False)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    # On the CPU as the reference ran; a GPU trains in channels last.
    layout = torch.preserve_format if device.type == "cpu" else torch.channels_last
    for model in (student, teacher):
        model.to(device, memory_format=layout)
    images = data["img"].to(device, memory_format=layout)
    # The teacher is the reference's in every precision: only the student's own rounding is compared.
    with torch.no_grad():
        teacher_features, teacher_raw = _forward(teacher, images)
    with autocast(precision, device):
        features, raw = _forward(student, images)
    logits = {name: getattr(teacher_raw, name).cpu() for name in ("cls_logits", "edge_logits")}
    soft = lossless_targets(replace(teacher_raw, **logits), labeled_views(data)).to(device)
    with device:
        levels = level_terms(raw, targets_of(data).to(device), soft, giou_loss)
    imitation = imitation_loss(data, levels.normalizers.main_per_level, features, teacher_features)
    scale = FLOAT16_SCALE if precision == "float16" else 1.0
    sgd = description["optimizer"]
    assert sgd["type"] == "SGD"
    rates = {"learning_rate": sgd["lr"], "weight_decay": sgd["weight_decay"]}
    config = TrainConfig(epochs=1, batch_size=2, optimizer="sgd", warmup_steps=0, decay="step", **rates)
    optimizer = build_optimizer(student, config, device)
    ((levels.total + imitation.sum()) * scale).backward()
    for parameter in student.parameters():
        if parameter.grad is not None:
            parameter.grad.div_(scale)
    optimizer.step()
    return Step(data, description, student, before, levels, imitation.detach())


def _forward(model: GFL, images: Tensor) -> tuple[list[Tensor], RawOutputs]:
    features = model.neck(model.backbone(images))
    return features, flatten_levels(model.bbox_head(features))
