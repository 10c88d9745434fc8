"""BCKD's losses: codes as scores, gradients as autograd has them, and to the student alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.losses.bckd import bckd_box_loss, bckd_cls_loss, bckd_distances

STUDENT = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0)) * 3
CODES = torch.randint(0, 40, (2, 9, 5), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
SCORES = torch.linspace(0.001, 0.999, 40)
WEIGHTS = torch.arange(18.0).reshape(2, 9)


def plainly(logits: Tensor, scores: Tensor) -> Tensor:
    """The formula, left to autograd."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, scores, reduction="none")
    return (cross_entropy * (scores - logits.sigmoid()).abs()).sum(dim=-1)


def test_codes_are_looked_up_and_the_gradient_is_that_of_the_formula() -> None:
    first, second = STUDENT.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    loss, weight = bckd_cls_loss(first, CODES, SCORES)
    expected = plainly(second, SCORES[CODES.long()])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(weight, (SCORES[CODES.long()] - STUDENT.sigmoid()).abs().amax(dim=-1))
    assert not weight.requires_grad
    for value in (loss, expected):
        (value * WEIGHTS).sum().backward()
    torch.testing.assert_close(first.grad, second.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_distances_and_their_gradient_are_those_of_the_softmax(dtype: torch.dtype) -> None:
    edges = (20 * torch.randn(2, 9, 4, 8, generator=torch.Generator().manual_seed(3))).to(dtype)
    first, second = edges.clone().requires_grad_(), edges.double().requires_grad_()
    found, expected = bckd_distances(first), second.softmax(dim=-1) @ torch.arange(8.0).double()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-6)
    for value in (found, expected):
        (value * WEIGHTS[..., None] * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum().backward()
    assert first.grad is not None
    assert first.grad.dtype == dtype
    torch.testing.assert_close(first.grad, second.grad.to(dtype), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_student_in_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits = STUDENT.to(dtype).requires_grad_()
    loss, _ = bckd_cls_loss(logits, CODES, SCORES)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plainly(logits.detach().float(), SCORES[CODES.long()]))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype


def test_boxes_around_any_point_of_any_unit_and_no_gradient_to_the_teacher() -> None:
    student, teacher = (torch.rand(3, 4, 4).add_(0.1).requires_grad_() for _ in range(2))
    loss = bckd_box_loss(student, teacher)
    torch.testing.assert_close(bckd_box_loss(student * 32, teacher * 32), loss)
    assert not bckd_box_loss(student, student).any()
    loss.sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_no_position_is_no_loss() -> None:
    loss, weight = bckd_cls_loss(torch.zeros(2, 0, 5), torch.zeros(2, 0, 5), None)
    assert (
        loss.shape
        == weight.shape
        == bckd_box_loss(torch.zeros(2, 0, 4), torch.zeros(2, 0, 4)).shape
        == (2, 0)
    )
