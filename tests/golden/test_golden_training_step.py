"""One training step of a student next to its teacher: losses, gradients, and the weights after it."""

import pytest
import torch
from golden_losses import TERMS
from golden_step import Step, run_step

pytestmark = pytest.mark.slow

LOSS_TOLERANCE = {"rtol": 2e-5, "atol": 1e-7}
NORM_TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 1e-3
"""Of a tensor's largest value: ReLU inputs next to zero change sign between kernels (set's README, 10)."""

PARAMETER_ROUNDING = 3e-7
"""A few units in the last place of parameters around 1."""


@pytest.fixture(scope="module")
def step() -> Step:
    return run_step(torch.device("cpu"))


@pytest.mark.parametrize("term", TERMS)
def test_losses(step: Step, term: str) -> None:
    torch.testing.assert_close(step.levels.terms[term].detach(), step.data[term], **LOSS_TOLERANCE)


def test_total(step: Step) -> None:
    torch.testing.assert_close(step.imitation, step.data["loss_im"], **LOSS_TOLERANCE)
    total = step.levels.total.detach() + step.imitation.sum()
    torch.testing.assert_close(total, step.data["total"], **LOSS_TOLERANCE)


def test_frozen_parameters(step: Step) -> None:
    frozen = {name for name, parameter in step.student.named_parameters() if not parameter.requires_grad}
    assert frozen == set(step.description["frozen_parameters"])
    after = step.student.state_dict()
    for name in frozen:
        assert torch.equal(after[name], step.before[name]), name
    # The reference's optimizer holds the frozen parameters too, without effect.
    assert len(list(step.student.parameters())) == step.description["params_in_optimizer"]


def test_running_statistics_stay(step: Step) -> None:
    after = step.student.state_dict()
    for name in after:
        if "running_" in name or "num_batches" in name:
            assert torch.equal(after[name], step.before[name]), name


def test_gradient_norms(step: Step) -> None:
    found = {
        name: None if parameter.grad is None else float(parameter.grad.norm())
        for name, parameter in step.student.named_parameters()
        if parameter.requires_grad
    }
    expected = step.description["grad_norms"]
    assert set(found) == set(expected)
    assert found == pytest.approx(expected, rel=NORM_TOLERANCE, abs=1e-7)


def test_gradient_samples(step: Step) -> None:
    parameters = dict(step.student.named_parameters())
    for index, name in enumerate(step.description["sample_keys"]):
        expected = step.data[f"grad_sample_{index}"]
        found = parameters[name].grad.flatten()[: len(expected)]
        assert (found - expected).abs().max() <= GRADIENT_TOLERANCE * expected.abs().max(), name


def test_parameters_after_the_step(step: Step) -> None:
    parameters = dict(step.student.named_parameters())
    rate = step.description["optimizer"]["lr"]
    for index, name in enumerate(step.description["sample_keys"]):
        expected, gradient = step.data[f"param_after_step_{index}"], step.data[f"grad_sample_{index}"]
        found = parameters[name].detach().flatten()[: len(expected)]
        allowed = rate * GRADIENT_TOLERANCE * gradient.abs().max() + PARAMETER_ROUNDING
        assert (found - expected).abs().max() <= allowed, name
        # Without the gradients' own difference, what is left shows the weight decay: 1e-6 of a parameter.
        own = parameters[name].grad.flatten()[: len(expected)]
        rest = (found + rate * own) - (expected + rate * gradient)
        assert rest.abs().max() <= PARAMETER_ROUNDING, name
