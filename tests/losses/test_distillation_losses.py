"""Losses that read a teacher: gradients as autograd has them, and to the student alone."""

import pytest
import torch
from torch.nn import functional

from pipeline.losses.distillation import bckd_box_loss, bckd_cls_loss, bckd_distances, kd_divergence

STUDENT = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0)) * 3
CODES = torch.randint(0, 40, (2, 9, 5), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
SCORES = torch.linspace(0.001, 0.999, 40)
WEIGHTS = torch.arange(18.0).reshape(2, 9)


@pytest.mark.parametrize(("shape", "temperature"), [((1, 4, 17), 2.0), ((5, 4, 17), 0.0), ((5, 4, 17), -1.0)])
def test_other_shapes_and_temperatures_are_refused(shape: tuple[int, ...], temperature: float) -> None:
    with pytest.raises(ValueError, match="expected logits of one shape and T > 0"):
        kd_divergence(torch.zeros(5, 4, 17), torch.zeros(shape), temperature)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_codes_are_looked_up_and_the_gradient_is_that_of_the_formula(dtype: torch.dtype) -> None:
    """Whatever the student's precision, it is computed in float32."""
    first = STUDENT.to(dtype, copy=True).requires_grad_()
    second, scores = first.detach().float().requires_grad_(), SCORES[CODES.long()]
    loss, weight = bckd_cls_loss(first, CODES, SCORES)
    gap = (scores - second.sigmoid()).abs()
    entropy = functional.binary_cross_entropy_with_logits(second, scores, reduction="none")
    expected = (entropy * gap).sum(dim=-1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(weight, gap.detach().amax(dim=-1))
    assert loss.dtype == torch.float32
    assert not weight.requires_grad
    for value in (loss, expected):
        (value * WEIGHTS).sum().backward()
    torch.testing.assert_close(first.grad, second.grad.to(dtype))


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


def test_boxes_around_any_point_of_any_unit_and_no_gradient_to_the_teacher() -> None:
    student, teacher = (torch.rand(3, 4, 4).add_(0.1).requires_grad_() for _ in range(2))
    loss = bckd_box_loss(student, teacher)
    torch.testing.assert_close(bckd_box_loss(student * 32, teacher * 32), loss)
    assert not bckd_box_loss(student, student).any()
    (loss + kd_divergence(student, teacher, 2.0)).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None
