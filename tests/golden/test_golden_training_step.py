"""One training step of a student next to its teacher: losses, gradients, and the weights after it.

The recorded step has feature imitation switched on, whose gradient reaches neck and backbone. The product
has no such term; this module adds its own, from the live teacher's features, so that the gradients of all
parameters can be compared.
"""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from golden_data import (
    FOLDER,
    PYRAMID,
    Arrays,
    anchors_of,
    boxes_of,
    image_count,
    in_batch,
    load,
    lossless_targets,
    planned_views,
    size_of,
    targets_of,
)
from golden_losses import TERMS, LevelTerms, level_terms
from golden_models import recipe_detector
from torch import Tensor

from pipeline.detector.backbone import freeze_stages, set_norms_to_eval
from pipeline.detector.gfl import GFL
from pipeline.detector.head import flatten_levels
from pipeline.losses.detection import giou_loss
from pipeline.training.schedule import ScheduleConfig, build_optimizer
from pipeline.views.box_ops import box_iou

CLASSES = 80
IMITATION_WEIGHT = 2.0
IMITATED_FRACTION = 0.5
"""A cell is imitated if its anchor's IoU with a box exceeds this fraction of the box's best."""

LOSS_TOLERANCE = {"rtol": 2e-5, "atol": 1e-7}
NORM_TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 1e-3
"""Of a tensor's largest value: ReLU inputs next to zero change sign between kernels (set's README, 10)."""

PARAMETER_ROUNDING = 3e-7
"""A few units in the last place of parameters around 1."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The recorded step and this project's."""

    data: Arrays
    description: dict[str, Any]
    student: GFL
    """After the step."""
    before: dict[str, Tensor]
    """Its state before."""
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
        error = (student[level] - teacher[level]).square().permute(0, 2, 3, 1).flatten(1, 2)
        used = bool(main_per_level[level]) and bool(region.any())
        losses.append(IMITATION_WEIGHT * error[region].mean() if used else error.new_zeros(()))
    return torch.stack(losses)


def imitated(data: Arrays, image: int) -> Tensor:
    """``BoolTensor[N]``: the fine-grained imitation region of an image in the batch's grid."""
    anchors, _ = anchors_of(size_of(data["pad_hw"][image]))
    iou = box_iou(anchors[:, None], boxes_of(data, image))
    return in_batch(data, image, (iou > IMITATED_FRACTION * iou.amax(dim=0)).any(dim=1), outside=0)


def schedule_of(optimizer: dict[str, Any]) -> ScheduleConfig:
    assert optimizer["type"] == "SGD"
    return ScheduleConfig(
        epochs=1,
        batch_size=2,
        optimizer="sgd",
        learning_rate=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
        warmup_steps=0,
        decay="step",
        milestones=(),
        max_grad_norm=None,
    )


@pytest.fixture(scope="module")
def step() -> Step:
    data = load(FOLDER / "e2e.npz")
    description = json.loads((FOLDER / "e2e.json").read_text())
    student = recipe_detector(description["student"].split()[0], description["student_salt"], CLASSES)
    teacher = recipe_detector(description["teacher"].split()[0], description["teacher_salt"], CLASSES)
    freeze_stages(student.backbone, 1)
    student.train()
    set_norms_to_eval(student)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    with torch.no_grad():
        teacher_features = teacher.neck(teacher.backbone(data["img"]))
        teacher_raw = flatten_levels(teacher.bbox_head(teacher_features))
    features = student.neck(student.backbone(data["img"]))
    raw = flatten_levels(student.bbox_head(features))
    soft = lossless_targets(teacher_raw, planned_views(data))
    levels = level_terms(raw, targets_of(data), soft, giou_loss)
    imitation = imitation_loss(data, levels.normalizers.main_per_level, features, teacher_features)
    optimizer = build_optimizer(student, schedule_of(description["optimizer"]))
    (levels.total + imitation.sum()).backward()
    optimizer.step()
    return Step(
        data=data,
        description=description,
        student=student,
        before=before,
        levels=levels,
        imitation=imitation.detach(),
    )


@pytest.mark.parametrize("term", TERMS)
def test_losses(step: Step, term: str) -> None:
    torch.testing.assert_close(step.levels.terms[term].detach(), step.data[term], **LOSS_TOLERANCE)


def test_total(step: Step) -> None:
    torch.testing.assert_close(step.imitation, step.data["loss_im"], **LOSS_TOLERANCE)
    total = step.levels.total.detach() + step.imitation.sum()
    torch.testing.assert_close(total, step.data["total"], **LOSS_TOLERANCE)


def test_frozen_parameters(step: Step) -> None:
    frozen = {name for name, parameter in step.student.named_parameters() if not parameter.requires_grad}
    assert frozen == set(step.description["frozen_parameters"])
    after = step.student.state_dict()
    for name in frozen:
        assert torch.equal(after[name], step.before[name]), name
    # The reference's optimizer holds the frozen parameters too, without effect.
    assert len(list(step.student.parameters())) == step.description["params_in_optimizer"]


def test_running_statistics_stay(step: Step) -> None:
    after = step.student.state_dict()
    for name in after:
        if "running_" in name or "num_batches" in name:
            assert torch.equal(after[name], step.before[name]), name


def test_gradient_norms(step: Step) -> None:
    found = {
        name: None if parameter.grad is None else float(parameter.grad.norm())
        for name, parameter in step.student.named_parameters()
        if parameter.requires_grad
    }
    expected = step.description["grad_norms"]
    assert set(found) == set(expected)
    assert found == pytest.approx(expected, rel=NORM_TOLERANCE, abs=1e-7)


def test_gradient_samples(step: Step) -> None:
    parameters = dict(step.student.named_parameters())
    for index, name in enumerate(step.description["sample_keys"]):
        expected = step.data[f"grad_sample_{index}"]
        found = parameters[name].grad.flatten()[: len(expected)]
        assert (found - expected).abs().max() <= GRADIENT_TOLERANCE * expected.abs().max(), name


def test_parameters_after_the_step(step: Step) -> None:
    parameters = dict(step.student.named_parameters())
    rate = step.description["optimizer"]["lr"]
    for index, name in enumerate(step.description["sample_keys"]):
        expected, gradient = step.data[f"param_after_step_{index}"], step.data[f"grad_sample_{index}"]
        found = parameters[name].detach().flatten()[: len(expected)]
        allowed = rate * GRADIENT_TOLERANCE * gradient.abs().max() + PARAMETER_ROUNDING
        assert (found - expected).abs().max() <= allowed, name
        # Without the gradients' own difference, what is left shows the weight decay: 1e-6 of a parameter.
        own = parameters[name].grad.flatten()[: len(expected)]
        rest = (found + rate * own) - (expected + rate * gradient)
        assert rest.abs().max() <= PARAMETER_ROUNDING, name
