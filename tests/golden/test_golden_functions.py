"""Elementary functions: losses and their gradients, integral, distances, overlaps.

``im_loss_weight2`` is left out (see ``golden_data``).
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from golden_data import FOLDER, load
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, distance_box_iou_loss

from pipeline.losses.detection import ciou_loss, distribution_focal_loss, giou_loss, quality_focal_loss
from pipeline.losses.distillation import kd_divergence
from pipeline.regions.points import center_penalty, vlr_overlap
from pipeline.training.criterion import BOX_WEIGHT, DFL_WEIGHT
from pipeline.views.box_ops import box_iou, decode_boxes, encode_distances, expected_distances

DATA = load(FOLDER / "functions.npz")
REG_MAX = 16
TIED_BOX_ROWS = 5
"""Rows whose minima and maxima tie: their sub-gradients depend on the implementation."""

BOX_LOSSES = {"giou": giou_loss, "diou": distance_box_iou_loss, "ciou": ciou_loss}


def loss_and_gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """Per-element losses, and the gradient of their sum."""
    at = at.clone().requires_grad_()
    values = loss(at)
    (gradient,) = torch.autograd.grad(values.sum(), at)
    return values.detach(), gradient


assert_loss = partial(torch.testing.assert_close, rtol=2e-5, atol=1e-6)
assert_gradient = partial(torch.testing.assert_close, rtol=1e-4, atol=2e-6)


def test_quality_focal_loss() -> None:
    logits, label = DATA["qfl_pred"], DATA["qfl_label"]
    positive = label < logits.shape[1]
    quality = torch.zeros_like(logits)
    quality[positive, label[positive]] = DATA["qfl_score"][positive]
    found, gradient = loss_and_gradient(lambda x: quality_focal_loss(x, quality), logits)
    assert_loss(found, DATA["qfl_loss_none"])
    assert_gradient(gradient, DATA["qfl_grad_of_sum"])
    assert_loss((found * DATA["qfl_weight"]).sum() / DATA["qfl_avg_factor"], DATA["qfl_loss_weighted"])
    assert_loss(found.mean(), DATA["qfl_loss_mean"])


def test_distribution_focal_loss() -> None:
    found, gradient = loss_and_gradient(
        lambda x: DFL_WEIGHT * distribution_focal_loss(x, DATA["dfl_target"]), DATA["dfl_pred"]
    )
    assert_loss(found, DATA["dfl_loss_none"])
    assert_gradient(gradient, DATA["dfl_grad_of_sum"])
    assert_loss((found * DATA["dfl_weight"]).sum() / 4, DATA["dfl_loss_weighted_avg4"])


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_box_loss(name: str) -> None:
    found, gradient = loss_and_gradient(
        lambda x: BOX_WEIGHT * BOX_LOSSES[name](x, DATA["box_target"]), DATA["box_pred"]
    )
    expected = DATA[f"{name}_loss_none"]
    defined = ~expected.isnan()
    assert_loss(found[defined], expected[defined])
    # Where the reference divides 0 by 0 the boxes are equal (note N4): the loss is 0 and differentiable.
    assert_loss(found[~defined], torch.zeros_like(found[~defined]))
    assert gradient.isfinite().all()
    finite = DATA[f"{name}_grad_finite"].bool()
    weighted = (found * DATA["box_weight"])[finite].sum()
    assert_loss(weighted, DATA[f"{name}_loss_weighted_avg1_finite_rows"])
    finite[:TIED_BOX_ROWS] = False
    assert_gradient(gradient[finite], DATA[f"{name}_grad_of_sum"][finite])


@pytest.mark.parametrize("temperature", [1, 2, 10])
@pytest.mark.parametrize("name", ["ld", "kd"])
def test_kd_divergence(name: str, temperature: int) -> None:
    found, gradient = loss_and_gradient(
        lambda x: kd_divergence(x, DATA[f"{name}_teacher"], temperature), DATA[f"{name}_pred"]
    )
    prefix = f"{name}_T{temperature}"
    assert_loss(found, DATA[f"{prefix}_loss_none"])
    assert_gradient(gradient, DATA[f"{prefix}_grad_of_sum"])
    assert_loss((found * DATA[f"{name}_weight"]).sum() / 4, DATA[f"{prefix}_loss_weighted_avg4"])


def test_integral() -> None:
    rows = len(DATA["integral_in"])
    found, gradient = loss_and_gradient(
        lambda x: expected_distances(x.reshape(rows, 4, -1)), DATA["integral_in"]
    )
    assert_loss(found, DATA["integral_out"])
    assert_gradient(gradient, DATA["integral_grad_of_sum"])


def test_encoded_and_decoded_distances() -> None:
    for name, limit in (("nomax", None), ("max16", REG_MAX - 0.1), ("max16_eps05", REG_MAX - 0.5)):
        found = encode_distances(DATA["dist_points"], DATA["dist_boxes"], limit)
        torch.testing.assert_close(found, DATA[f"bbox2distance_{name}"])
    boxes = decode_boxes(DATA["dist_points"], DATA["dist_in"])
    torch.testing.assert_close(boxes, DATA["distance2bbox_plain"])
    clipped = clip_boxes_to_image(boxes, tuple(DATA["dist_max_shape_hw"].tolist()))
    torch.testing.assert_close(clipped, DATA["distance2bbox_clipped"])


def giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """From the loss of aligned boxes."""
    first, second = torch.broadcast_tensors(boxes1, boxes2)
    return 1 - giou_loss(first.reshape(-1, 4), second.reshape(-1, 4)).reshape(first.shape[:-1])


OVERLAPS = {
    "iou": box_iou,
    "iof": lambda *boxes: vlr_overlap(*boxes, "released") + center_penalty(*boxes),
    "giou": giou,
    "diou": lambda *boxes: vlr_overlap(*boxes, "released"),
}
"""``diou`` of the reference has the first box's area where the union belongs (note N2)."""


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlaps(name: str) -> None:
    overlap = OVERLAPS[name]
    assert_loss(overlap(DATA["ov_boxes1"][:, None], DATA["ov_boxes2"]), DATA[f"ov_{name}_matrix"])
    assert_loss(overlap(DATA["box_pred"], DATA["box_target"]), DATA[f"ov_{name}_aligned"])
