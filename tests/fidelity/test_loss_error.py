"""Errors of a loss: nothing for equal logits, what the formula says for others."""

import math

import pytest
import torch

from pipeline.fidelity.fidelity import measure_loss_error, stand_in_student


def logits(rows: int = 6, n: int = 4, k: int = 5) -> torch.Tensor:
    return torch.randn(rows, n, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_equal_logits_have_no_error_and_neither_has_a_constant_per_distribution() -> None:
    exact, weights = logits(), torch.rand(6)
    for same in (exact, exact + torch.arange(24.0).reshape(6, 4, 1)):
        error = measure_loss_error((exact, weights), (same, weights), stand_in_student(exact, 1), 3.0)
        assert error.kl_mean == pytest.approx(0, abs=1e-15)
        assert error.loss_error == pytest.approx(0, abs=1e-12)
        assert error.gradient_error == pytest.approx(0, abs=1e-12)
        assert error.gradient_cosine == pytest.approx(1)


def test_two_bins_by_hand() -> None:
    """One distribution over two bins: p is the sigmoid of the difference over T."""
    exact, approximate = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[0.4, 0.0]]])
    student, one = torch.tensor([[[2.0, 0.0]]]), torch.ones(1)
    error = measure_loss_error((exact, one), (approximate, one), student, 2.0)
    p = 1 / (1 + math.exp(-0.2))
    assert error.kl_mean == pytest.approx(0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p)))
    s = 1 / (1 + math.exp(-1.0))
    assert error.gradient_error == pytest.approx((p - 0.5) / (s - 0.5))


def test_a_wrong_weight_is_an_error_and_a_row_of_no_weight_brings_none() -> None:
    exact, weights = logits(), torch.ones(6)
    error = measure_loss_error((exact, weights), (exact, 1.01 * weights), stand_in_student(exact, 1), 3.0)
    assert error.loss_error == pytest.approx(0.01)
    assert error.gradient_error == pytest.approx(0.01)
    wrong, weights[2] = exact.clone(), 0
    wrong[2] = exact[2].flip(-1)
    error = measure_loss_error((exact, weights), (wrong, weights), stand_in_student(exact, 1), 3.0)
    assert error.gradient_error == 0
    assert error.kl_max > 0


def test_no_rows() -> None:
    nothing = (logits(rows=0), torch.ones(0))
    error = measure_loss_error(nothing, nothing, logits(rows=0), 3.0)
    assert (error.kl_mean, error.loss_error, error.gradient_error) == (0, 0, 0)
