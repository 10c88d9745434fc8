import math

import pytest
import torch

from pipeline.losses.distillation import kd_divergence


def test_gradient_by_hand() -> None:
    """``T / n * (p - q)`` = 2 / 2 * ((1/2, 1/2) - (3/4, 1/4)); the teacher gets none."""
    student = torch.zeros(1, 2, requires_grad=True)
    teacher = torch.tensor([[2 * math.log(3), 0.0]], requires_grad=True)
    kd_divergence(student, teacher, 2.0).sum().backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.25, 0.25]]))
    assert teacher.grad is None


def test_a_constant_per_distribution_changes_nothing() -> None:
    """What lets a store drop it."""
    student, teacher = torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[0.0, 3.0, 1.0]])
    expected = kd_divergence(student, teacher, 10.0)
    torch.testing.assert_close(kd_divergence(student + 7, teacher - 4, 10.0), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shape", "temperature"), [((1, 4, 17), 2.0), ((5, 4, 17), 0.0), ((5, 4, 17), -1.0)])
def test_other_shapes_and_temperatures_are_refused(shape: tuple[int, ...], temperature: float) -> None:
    with pytest.raises(ValueError, match="expected logits of one shape and T > 0"):
        kd_divergence(torch.zeros(5, 4, 17), torch.zeros(shape), temperature)
