"""BCKD's two terms on dense teacher outputs: values and gradients of every level, and of single functions.

The product leaves out no level (``student.distillation``); the reference does where the batch has no positive
on one, so that the sums of its levels are compared behind that gate.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from golden_data import (
    BCKD,
    PYRAMID,
    STRIDES,
    Arrays,
    cases,
    labeled_views,
    load,
    lossless_targets,
    targets_of,
)
from golden_losses import at_level
from torch import Tensor

from pipeline.detector.head import EDGES, RawOutputs
from pipeline.losses.bckd import bckd_box_loss, bckd_cls_loss, bckd_distances
from pipeline.losses.config import DistillationConfig
from pipeline.losses.detection import giou_loss
from pipeline.student.distillation import distillation_terms
from pipeline.student.targets import DenseTeacher
from pipeline.training.batches import BatchLabels
from pipeline.training.criterion import LossNormalizers, gather_main
from pipeline.views.box_ops import expected_distances

CLASS_WEIGHT, BOX_WEIGHT = 1.0, 4.0
CONFIG = DistillationConfig(
    ld_temperature=10, kd_temperature=2, bckd_cls_weight=CLASS_WEIGHT, bckd_box_weight=BOX_WEIGHT
)
DATA = load(BCKD / "functions.npz")
every_case = pytest.mark.parametrize("path", cases("loss/*.npz", folder=BCKD))
every_head = pytest.mark.parametrize("head", ["level", "level8"])


def close(found: Tensor, expected: Tensor, share: float = 3e-6) -> None:
    """Within a share of the array's largest value."""
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=share * largest + 1e-7)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A recorded batch, and what this project makes of it, level by level."""

    data: Arrays
    classes: Tensor
    edges: Tensor
    targets: BatchLabels
    levels: dict[str, Tensor]


@cache
def computed(path: Path) -> Case:
    data = load(path)
    grid = PYRAMID.grid((int(data["batch_hw"][0]), int(data["batch_hw"][1])))
    classes, edges = data["stu_cls"].requires_grad_(), data["stu_reg"].requires_grad_()
    raw = raw_of(classes, edges, grid.sizes)
    teacher = raw_of(data["tea_cls"], data["tea_reg"], grid.sizes)
    # In the student's way, so that equal boxes are equal to the bit: the loss of such is recorded as 0.
    distances = bckd_distances(teacher.edge_logits)
    dense = DenseTeacher(classes=teacher.cls_logits, scores=None, distances=distances, unit=1.0)
    targets, views = targets_of(data), labeled_views(data)
    soft = replace(lossless_targets(teacher, views), dense=dense)
    main = gather_main(raw, targets)
    normalizers = LossNormalizers.from_batch(targets, main)
    assert normalizers.positives == data["num_total_samples"]
    batches = [at_level(targets, soft, level) for level in range(len(STRIDES))]
    terms = [distillation_terms(raw, *batch, main, normalizers, CONFIG) for batch in batches]
    names = {"loss_kd": "loss_bckd_cls", "loss_score_kd": "loss_bckd_box"}
    levels = {name: torch.stack([row[own] for row in terms]) for name, own in names.items()}
    return Case(data=data, classes=classes, edges=edges, targets=targets, levels=levels)


def raw_of(classes: Tensor, edges: Tensor, sizes: tuple[tuple[int, int], ...]) -> RawOutputs:
    edges = edges.reshape(*edges.shape[:2], EDGES, -1)
    return RawOutputs(cls_logits=classes, edge_logits=edges, sizes=sizes)


@every_case
@pytest.mark.parametrize("term", ["loss_kd", "loss_score_kd"])
def test_term_of_every_level(path: Path, term: str) -> None:
    case = computed(path)
    gate = case.data["pos_per_level"] > 0
    close(case.levels[term] * gate, case.data[term], 2e-6)


@every_case
def test_gradients(path: Path) -> None:
    case = computed(path)
    gate = case.data["pos_per_level"] > 0
    for term, own, other, name in (
        ("loss_kd", case.classes, case.edges, "grad_kd_cls"),
        ("loss_score_kd", case.edges, case.classes, "grad_score_kd_reg"),
    ):
        loss = (case.levels[term] * gate).sum()
        found = torch.autograd.grad(loss, [own, other], retain_graph=True, materialize_grads=True)
        untied = (case.data["box_tie"] * (own is case.edges) == 0)[..., None]
        close(found[0] * untied, case.data[name] * untied)
        assert not found[1].any()


@every_case
def test_every_level_has_its_share_of_the_recorded_gradient(path: Path) -> None:
    case = computed(path)
    norms = case.data["grad_norms"][5, :, 0]
    lengths = PYRAMID.grid_of(case.targets.sizes).lengths
    for level in range(len(STRIDES)):
        if case.data["pos_per_level"][level] == 0:
            assert norms[level] == 0
            continue
        (found,) = torch.autograd.grad(case.levels["loss_kd"][level], case.classes, retain_graph=True)
        close(found.split(lengths, dim=1)[level].norm(), norms[level], 1e-5)


def test_class_term_row_by_row() -> None:
    logits = DATA["kd_pred"].clone().requires_grad_()
    loss, _ = bckd_cls_loss(logits[None], DATA["kd_teacher"][None], None)
    close(loss[0], DATA["kd_beta1_loss_none"])
    (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    close(gradient, DATA["kd_beta1_grad_of_sum"])
    (weighted,) = torch.autograd.grad((loss[0] * DATA["kd_weight"]).sum() / DATA["kd_avg_factor"], logits)
    close(weighted, DATA["kd_grad_weighted"])


def test_giou_row_by_row() -> None:
    boxes = DATA["giou_pred"].clone().requires_grad_()
    loss = BOX_WEIGHT * giou_loss(boxes, DATA["giou_target"])
    close(loss, DATA["giou4_loss_none"])
    (gradient,) = torch.autograd.grad(loss.sum(), boxes)
    untied = (DATA["giou_tie_row"] == 0)[:, None]
    close(gradient * untied, DATA["giou4_grad_of_sum"] * untied)


@every_head
def test_head_with_arbitrary_label_weights(head: str) -> None:
    data = {
        name.removeprefix(f"{head}_"): value for name, value in DATA.items() if name.startswith(f"{head}_")
    }
    classes, edges = data["stu_cls"].requires_grad_(), data["stu_reg"].requires_grad_()
    distances, teacher_distances = (
        expected_distances(each.reshape(len(each), EDGES, -1)) for each in (edges, data["tea_reg"])
    )
    close(distances, data["stu_distances"])
    loss, weight = (each[0] for each in bckd_cls_loss(classes[None], data["tea_cls"][None], None))
    box = BOX_WEIGHT * bckd_box_loss(distances, teacher_distances)
    close(loss, data["kd_loss_none"])
    close(weight * data["label_weights"], data["box_weight"])
    close(box, data["box_loss_none"])
    total_cls = (loss * data["label_weights"]).sum() / data["num_total_samples"]
    total_box = (box * weight * data["label_weights"]).sum() / data["num_total_samples"]
    close(total_cls, data["loss_kd"][()])
    close(total_box, data["loss_score_kd"][()])
    close(torch.autograd.grad(total_cls, classes)[0], data["grad_kd_cls"])
    close(torch.autograd.grad(total_box, edges)[0], data["grad_score_kd_reg"])


def test_two_processes_divide_by_the_mean_of_their_positives() -> None:
    recorded = load(BCKD / "two_processes.npz")
    alone = [computed(BCKD / "loss" / f"{name}.npz") for name in ("one_image", "one_image_without_positives")]
    positives = [float(case.data["num_total_samples"]) for case in alone]
    for rank, case in enumerate(alone):
        shared = positives[rank] / (sum(positives) / 2)
        gate = case.data["pos_per_level"] > 0
        close(case.levels["loss_kd"] * gate * shared, recorded[f"rank{rank}_loss_kd"])
