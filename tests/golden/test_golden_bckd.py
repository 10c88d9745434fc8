"""BCKD's two terms on dense teacher outputs: values and gradients of every level, and of single functions.

The product leaves out no level (``student.train``); the reference does where the batch has no positive
on one, so that the sums of its levels are compared behind that gate.
"""

from dataclasses import replace
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
    size_of,
    targets_of,
)
from golden_losses import at_level
from torch import Tensor

from pipeline.detector.head import EDGES, RawOutputs
from pipeline.losses.config import DistillationConfig
from pipeline.losses.distillation import bckd_box_loss, bckd_cls_loss, bckd_distances
from pipeline.student.targets import DenseTeacher
from pipeline.student.train import distillation_terms
from pipeline.training.criterion import LossNormalizers, gather_main
from pipeline.views.box_ops import expected_distances

BOX_WEIGHT = 4.0
CONFIG = DistillationConfig(
    ld_temperature=10, kd_temperature=2, bckd_cls_weight=1.0, bckd_box_weight=BOX_WEIGHT
)
TERMS = {"loss_kd": "loss_bckd_cls", "loss_score_kd": "loss_bckd_box"}
"""This project's name of each term of the reference."""
DATA = load(BCKD / "functions.npz")


def close(found: Tensor, expected: Tensor, share: float = 3e-6) -> None:
    """Within a share of the array's largest value."""
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found.detach(), expected, rtol=0, atol=share * largest + 1e-7)


Case = tuple[Arrays, Tensor, Tensor, dict[str, Tensor]]
"""A recorded batch, the student's classes and edges, and what this project makes of them, level by level."""


@cache
def computed(path: Path) -> Case:
    data = load(path)
    sizes = PYRAMID.grid(size_of(data["batch_hw"])).sizes
    data["stu_cls"].requires_grad_()
    data["stu_reg"].requires_grad_()
    edges = {who: data[f"{who}_reg"].unflatten(2, (EDGES, -1)) for who in ("stu", "tea")}
    raw, teacher = (
        RawOutputs(cls_logits=data[f"{who}_cls"], edge_logits=edges[who], sizes=sizes) for who in edges
    )
    # In the student's way, so that equal boxes are equal to the bit: the loss of such is recorded as 0.
    distances = bckd_distances(teacher.edge_logits)
    dense = DenseTeacher(classes=teacher.cls_logits, scores=None, distances=distances, unit=1.0)
    targets = targets_of(data)
    soft = replace(lossless_targets(teacher, labeled_views(data)), dense=dense)
    main = gather_main(raw, targets)
    normalizers = LossNormalizers.from_batch(targets, main)
    assert normalizers.positives == data["num_total_samples"]
    batches = [at_level(targets, soft, level) for level in range(len(STRIDES))]
    terms = [distillation_terms(raw, *batch, main, normalizers, CONFIG) for batch in batches]
    levels = {name: torch.stack([row[own] for row in terms]) for name, own in TERMS.items()}
    return data, data["stu_cls"], data["stu_reg"], levels


@pytest.mark.parametrize("path", cases("loss/*.npz", folder=BCKD))
def test_terms_and_gradients_of_every_level(path: Path) -> None:
    data, classes, edges, levels = computed(path)
    gate = data["pos_per_level"] > 0
    gradients = {}
    for term, own, other in (("loss_kd", classes, edges), ("loss_score_kd", edges, classes)):
        close(levels[term] * gate, data[term], 2e-6)
        loss = (levels[term] * gate).sum()
        gradients[term], crossed = torch.autograd.grad(
            loss, [own, other], retain_graph=True, materialize_grads=True
        )
        assert not crossed.any()
    close(gradients["loss_kd"], data["grad_kd_cls"])
    untied = (data["box_tie"] == 0)[..., None]
    close(gradients["loss_score_kd"] * untied, data["grad_score_kd_reg"] * untied)
    lengths = PYRAMID.grid(size_of(data["batch_hw"])).lengths
    for level, norm in enumerate(data["grad_norms"][5, :, 0] * gate):
        (found,) = torch.autograd.grad(levels["loss_kd"][level] * gate[level], classes, retain_graph=True)
        close(found.split(lengths, dim=1)[level].norm(), norm, 1e-5)


def test_class_term_row_by_row() -> None:
    logits = DATA["kd_pred"].clone().requires_grad_()
    loss, _ = bckd_cls_loss(logits[None], DATA["kd_teacher"][None], None)
    close(loss[0], DATA["kd_beta1_loss_none"])
    (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    close(gradient, DATA["kd_beta1_grad_of_sum"])
    (weighted,) = torch.autograd.grad((loss[0] * DATA["kd_weight"]).sum() / DATA["kd_avg_factor"], logits)
    close(weighted, DATA["kd_grad_weighted"])


@pytest.mark.parametrize("head", ["level", "level8"])
def test_head_with_arbitrary_label_weights(head: str) -> None:
    data = {name.removeprefix(f"{head}_"): value for name, value in DATA.items()}
    classes, edges = data["stu_cls"].requires_grad_(), data["stu_reg"].requires_grad_()
    maps = [data[f"{who}_reg"].unflatten(1, (EDGES, -1)) for who in ("stu", "tea")]
    distances, taught = map(expected_distances, maps)
    close(distances, data["stu_distances"])
    loss, weight = (each[0] for each in bckd_cls_loss(classes[None], data["tea_cls"][None], None))
    box = BOX_WEIGHT * bckd_box_loss(distances, taught)
    share = data["label_weights"] / data["num_total_samples"]
    close(loss, data["kd_loss_none"])
    close(weight * data["label_weights"], data["box_weight"])
    close(box, data["box_loss_none"])
    total_cls, total_box = (loss * share).sum(), (box * weight * share).sum()
    close(total_cls, data["loss_kd"][()])
    close(total_box, data["loss_score_kd"][()])
    close(torch.autograd.grad(total_cls, classes)[0], data["grad_kd_cls"])
    close(torch.autograd.grad(total_box, edges)[0], data["grad_score_kd_reg"])


def test_two_processes_divide_by_the_mean_of_their_positives() -> None:
    recorded = load(BCKD / "two_processes.npz")
    alone = [computed(BCKD / "loss" / f"{name}.npz") for name in ("one_image", "one_image_without_positives")]
    positives = [float(data["num_total_samples"]) for data, *_ in alone]
    for rank, (data, _, _, levels) in enumerate(alone):
        gate, shared = data["pos_per_level"] > 0, positives[rank] / (sum(positives) / 2)
        close(levels["loss_kd"] * gate * shared, recorded[f"rank{rank}_loss_kd"])
