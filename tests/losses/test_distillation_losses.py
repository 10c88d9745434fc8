import math

import pytest
import torch

from pipeline.losses.distillation import kd_divergence

EVEN = torch.zeros(1, 2)
DIVERGENCE = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
"""KL of (3/4, 1/4) from (1/2, 1/2)."""


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_divergence_of_a_sure_teacher_from_an_even_student(temperature: float) -> None:
    """Logits ``T log 3`` and 0 soften to (3/4, 1/4); the mean over 2 bins is halved, then times ``T^2``."""
    teacher = torch.tensor([[temperature * math.log(3), 0.0]])
    found = kd_divergence(EVEN, teacher, temperature)
    assert found.item() == pytest.approx(temperature**2 * DIVERGENCE / 2, rel=1e-5)


def test_gradient_by_hand() -> None:
    """``T / n * (p - q)`` = 2 / 2 * ((1/2, 1/2) - (3/4, 1/4)); the teacher gets none."""
    student = EVEN.clone().requires_grad_()
    teacher = torch.tensor([[2 * math.log(3), 0.0]], requires_grad=True)
    kd_divergence(student, teacher, 2.0).sum().backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.25, 0.25]]))
    assert teacher.grad is None


def test_a_perfect_student_has_no_loss() -> None:
    logits = torch.tensor([[3.0, -1.0, 0.5]])
    assert kd_divergence(logits, logits, 10.0).item() == pytest.approx(0, abs=1e-6)


def test_a_constant_per_distribution_changes_nothing() -> None:
    """What lets a store drop it."""
    student, teacher = torch.tensor([[1.0, 2.0, -1.0]]), torch.tensor([[0.0, 3.0, 1.0]])
    expected = kd_divergence(student, teacher, 10.0)
    torch.testing.assert_close(kd_divergence(student + 7, teacher - 4, 10.0), expected, rtol=1e-4, atol=1e-6)


def test_the_mean_over_the_entries_weakens_large_distributions() -> None:
    """Entries that neither side gives any weight to only raise the divisor: 2 of 2 against 2 of 8."""
    teacher = torch.tensor([[math.log(3), 0.0]])
    never = torch.full((1, 6), -100.0)
    small = kd_divergence(EVEN, teacher, 1.0)
    large = kd_divergence(torch.cat([EVEN, never], 1), torch.cat([teacher, never], 1), 1.0)
    assert large.item() == pytest.approx(small.item() / 4, rel=1e-5)


def test_shapes() -> None:
    assert kd_divergence(torch.zeros(5, 4, 17), torch.zeros(5, 4, 17), 10.0).shape == (5, 4)
    assert kd_divergence(torch.zeros(0, 80), torch.zeros(0, 80), 2.0).shape == (0,)
