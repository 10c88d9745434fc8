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


def test_losses(step: Step) -> None:
    for term in TERMS:
        torch.testing.assert_close(step.levels.terms[term].detach(), step.data[term], **LOSS_TOLERANCE)
    torch.testing.assert_close(step.imitation, step.data["loss_im"], **LOSS_TOLERANCE)
    total = step.levels.total.detach() + step.imitation.sum()
    torch.testing.assert_close(total, step.data["total"], **LOSS_TOLERANCE)


def test_frozen_parameters_and_running_statistics_stay(step: Step) -> None:
    frozen = {name for name, parameter in step.student.named_parameters() if not parameter.requires_grad}
    assert frozen == set(step.description["frozen_parameters"])
    after = step.student.state_dict()
    for name in after:
        if name in frozen or "running_" in name or "num_batches" in name:
            assert torch.equal(after[name], step.before[name]), name
    # The reference's optimizer holds the frozen parameters too, without effect.
    assert len(list(step.student.parameters())) == step.description["params_in_optimizer"]


def test_gradients_and_parameters_after_the_step(step: Step) -> None:
    parameters = {name: value for name, value in step.student.named_parameters() if value.requires_grad}
    norms = {name: parameter.grad.norm().item() for name, parameter in parameters.items()}
    assert norms == pytest.approx(step.description["grad_norms"], rel=NORM_TOLERANCE, abs=1e-7)
    rate = step.description["optimizer"]["lr"]
    for index, name in enumerate(step.description["sample_keys"]):
        expected, gradient = step.data[f"param_after_step_{index}"], step.data[f"grad_sample_{index}"]
        found = parameters[name].detach().flatten()[: len(expected)]
        found_gradient = parameters[name].grad.flatten()[: len(expected)]
        tolerance = GRADIENT_TOLERANCE * gradient.abs().max()
        assert (found_gradient - gradient).abs().max() <= tolerance, name
        assert (found - expected).abs().max() <= rate * tolerance + PARAMETER_ROUNDING, name
        # Without the gradients' own difference, what is left shows the weight decay: 1e-6 of a parameter.
        rest = (found + rate * found_gradient) - (expected + rate * gradient)
        assert rest.abs().max() <= PARAMETER_ROUNDING, name
