"""Every loss term of every level, its normalizers and its gradients.

``total`` and the gradients leave out feature imitation (see ``golden_data``), which does not reach the
logits. ``loss_kd_neg`` is 0 in the reference and does not exist here.
"""

from functools import cache, partial
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
from golden_losses import TERMS, LevelTerms, box_loss_of, level_terms
from torch import Tensor

from pipeline.losses.detection import giou_loss
from pipeline.training.criterion import WEIGHT_SUM_EPSILON, BoxLoss

LEVELS = range(len(STRIDES))

close = partial(torch.testing.assert_close, rtol=2e-5, atol=1e-7)
close_gradient = partial(torch.testing.assert_close, rtol=1e-4, atol=2e-6)
every_case = pytest.mark.parametrize("path", cases("loss/*.npz"))


def compute(data: Arrays, box_loss: BoxLoss) -> LevelTerms:
    soft = lossless_targets(raw_outputs(data, "tea_cls", "tea_reg"), labeled_views(data))
    return level_terms(raw_outputs(data, "stu_cls", "stu_reg"), targets_of(data), soft, box_loss)


@cache
def computed(path: Path) -> tuple[Arrays, list[Tensor], LevelTerms]:
    """A case, the student's maps of classes and then of edges, and what this project makes of them."""
    data = load(path)
    maps = [data[f"stu_{kind}{level}"].requires_grad_() for kind in ("cls", "reg") for level in LEVELS]
    return data, maps, compute(data, box_loss_of(data))


@every_case
def test_targets_terms_and_normalizers(path: Path) -> None:
    data, _, levels = computed(path)
    targets, normalizers = targets_of(data), levels.normalizers
    assert torch.equal(dense_labels(targets, int(data["num_classes"])), data["target_labels"])
    close(dense_valuable_weights(targets), data["target_vlr"], rtol=0, atol=1e-6)
    for term in TERMS:
        close(levels.terms[term].detach(), data[term], msg=lambda text, term=term: f"{term}: {text}")
    close(levels.total.detach(), data["total"] - data["loss_im"].sum())
    assert not data["loss_kd_neg"].any()
    assert normalizers.positives == data["num_total_samples"]
    close(normalizers.weight_sum + WEIGHT_SUM_EPSILON, data["avg_factor"])
    close(normalizers.weight_sum, data["weight_sum_per_level"].sum())


@every_case
def test_gradients_of_the_total_and_of_each_term(path: Path) -> None:
    data, maps, levels = computed(path)

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, maps, retain_graph=True, materialize_grads=True))

    recorded = [data[f"grad_{kind}{level}"] for kind in ("cls", "reg") for level in LEVELS]
    close_gradient(gradients(levels.total), recorded)
    for term, norms in zip(TERMS, data["grad_norms"], strict=False):
        for level in LEVELS:
            found = gradients(levels.terms[term][level])[level :: len(LEVELS)]
            close_gradient(torch.stack([gradient.norm() for gradient in found]), norms[level, :2])


@pytest.mark.parametrize("path", cases("loss/*.npz", holding="gfl_baseline_loss_cls"))
def test_plain_detector(path: Path) -> None:
    """Without a teacher; where the reference is NaN for want of positives (note N3), the loss is 0."""
    data = load(path)
    levels = compute(data, giou_loss)
    for term in TERMS[:3]:
        close(levels.terms[term], data[f"gfl_baseline_{term}"].nan_to_num(nan=0))
