"""Every loss term of every level, its normalizers and its gradients.

``total`` and the gradients leave out feature imitation (see ``golden_data``), which does not reach the
logits. ``loss_kd_neg`` is 0 in the reference and does not exist here.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from golden_data import (
    STRIDES,
    Arrays,
    cases,
    dense_labels,
    dense_valuable_weights,
    labeled_views,
    load,
    lossless_targets,
    raw_outputs,
    targets_of,
)
from golden_losses import DETECTION_TERMS, TERMS, LevelTerms, box_loss_of, level_terms
from torch import Tensor

from pipeline.losses.detection import giou_loss

LOSS_TOLERANCE = {"rtol": 2e-5, "atol": 1e-7}
GRADIENT_TOLERANCE = {"rtol": 1e-4, "atol": 2e-6}
WEIGHT_TOLERANCE = {"rtol": 0, "atol": 1e-6}

every_case = pytest.mark.parametrize("path", cases("loss/*.npz"))


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A case and what this project makes of it."""

    data: Arrays
    levels: LevelTerms

    def leaves(self, name: str) -> list[Tensor]:
        """The student's maps ``stu_cls`` or ``stu_reg`` of all levels, with gradients."""
        return [self.data[f"{name}{level}"] for level in range(len(STRIDES))]

    def gradients(self, loss: Tensor, name: str) -> list[Tensor]:
        """Gradient of a loss by these maps."""
        leaves = self.leaves(name)
        found = torch.autograd.grad(loss, leaves, retain_graph=True, materialize_grads=True)
        return list(found)


@cache
def recorded(path: Path) -> Arrays:
    data = load(path)
    for level in range(len(STRIDES)):
        data[f"stu_cls{level}"].requires_grad_()
        data[f"stu_reg{level}"].requires_grad_()
    return data


@cache
def computed(path: Path) -> Computed:
    data = recorded(path)
    student = raw_outputs(data, "stu_cls", "stu_reg")
    soft = lossless_targets(raw_outputs(data, "tea_cls", "tea_reg"), labeled_views(data))
    return Computed(data=data, levels=level_terms(student, targets_of(data), soft, box_loss_of(data)))


@every_case
def test_targets(path: Path) -> None:
    data = recorded(path)
    targets = targets_of(data)
    assert torch.equal(dense_labels(targets, int(data["num_classes"])), data["target_labels"])
    torch.testing.assert_close(dense_valuable_weights(targets), data["target_vlr"], **WEIGHT_TOLERANCE)


@every_case
@pytest.mark.parametrize("term", TERMS)
def test_term_of_every_level(path: Path, term: str) -> None:
    case = computed(path)
    torch.testing.assert_close(case.levels.terms[term].detach(), case.data[term], **LOSS_TOLERANCE)


@every_case
def test_total_without_imitation(path: Path) -> None:
    case = computed(path)
    expected = case.data["total"] - case.data["loss_im"].sum()
    torch.testing.assert_close(case.levels.total.detach(), expected, **LOSS_TOLERANCE)
    assert not case.data["loss_kd_neg"].any()


@every_case
def test_normalizers(path: Path) -> None:
    case = computed(path)
    normalizers = case.levels.normalizers
    assert normalizers.positives == case.data["num_total_samples"]
    torch.testing.assert_close(case.levels.avg_factor, case.data["avg_factor"], **LOSS_TOLERANCE)
    weights = case.data["weight_sum_per_level"]
    torch.testing.assert_close(normalizers.weight_sum, weights.sum(), **LOSS_TOLERANCE)


@every_case
@pytest.mark.parametrize("output", ["cls", "reg"])
def test_gradient_of_the_total(path: Path, output: str) -> None:
    case = computed(path)
    for level, found in enumerate(case.gradients(case.levels.total, f"stu_{output}")):
        torch.testing.assert_close(found, case.data[f"grad_{output}{level}"], **GRADIENT_TOLERANCE)


@every_case
@pytest.mark.parametrize("term", TERMS)
def test_gradient_norms_of_a_term(path: Path, term: str) -> None:
    case = computed(path)
    for level in range(len(STRIDES)):
        loss = case.levels.terms[term][level]
        norms = [case.gradients(loss, name)[level].norm() for name in ("stu_cls", "stu_reg")]
        expected = case.data["grad_norms"][TERMS.index(term), level, :2]
        torch.testing.assert_close(torch.stack(norms), expected, **GRADIENT_TOLERANCE)


@pytest.mark.parametrize("path", cases("loss/*.npz", holding="gfl_baseline_loss_cls"))
@pytest.mark.parametrize("term", DETECTION_TERMS)
def test_plain_detector(path: Path, term: str) -> None:
    """Without a teacher; where the reference is NaN for want of positives (note N3), the loss is 0."""
    data = recorded(path)
    student = raw_outputs(data, "stu_cls", "stu_reg")
    soft = lossless_targets(raw_outputs(data, "tea_cls", "tea_reg"), labeled_views(data))
    found = level_terms(student, targets_of(data), soft, giou_loss).terms[term].detach()
    expected = data[f"gfl_baseline_{term}"].nan_to_num(nan=0)
    torch.testing.assert_close(found, expected, **LOSS_TOLERANCE)
