"""One training step of a student next to its teacher: losses, gradients, and the weights after it."""

import pytest
import torch
from golden_losses import TERMS
from golden_step import run_step

LOSS_TOLERANCE = {"rtol": 2e-5, "atol": 1e-7}
NORM_TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 1e-3
"""Of a tensor's largest value: ReLU inputs next to zero change sign between kernels (set's README, 10)."""

PARAMETER_ROUNDING = 3e-7
"""A few units in the last place of parameters around 1."""


@pytest.mark.slow
def test_losses_gradients_and_parameters_after_the_step() -> None:
    step = run_step(torch.device("cpu"))
    data, description, rate = step.data, step.description, step.description["optimizer"]["lr"]
    total = step.levels.total.detach() + step.imitation.sum()
    losses = {**step.levels.terms, "loss_im": step.imitation, "total": total}
    for term in (*TERMS, "loss_im", "total"):
        torch.testing.assert_close(losses[term].detach(), data[term], **LOSS_TOLERANCE)

    parameters = dict(step.student.named_parameters())
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    assert frozen == set(description["frozen_parameters"])
    # The reference's optimizer holds the frozen parameters too, without effect.
    assert len(parameters) == description["params_in_optimizer"]
    for name, after in step.student.state_dict().items():
        if name in frozen or "running_" in name or "num_batches" in name:
            assert torch.equal(after, step.before[name]), name

    norms = {name: parameters[name].grad.norm().item() for name in parameters.keys() - frozen}
    assert norms == pytest.approx(description["grad_norms"], rel=NORM_TOLERANCE, abs=1e-7)
    for index, name in enumerate(description["sample_keys"]):
        expected, gradient = data[f"param_after_step_{index}"], data[f"grad_sample_{index}"]
        found, found_gradient = (
            values.flatten()[: len(expected)] for values in (parameters[name].detach(), parameters[name].grad)
        )
        tolerance = GRADIENT_TOLERANCE * gradient.abs().max()
        assert (found_gradient - gradient).abs().max() <= tolerance, name
        assert (found - expected).abs().max() <= rate * tolerance + PARAMETER_ROUNDING, name
        # Without the gradients' own difference, what is left shows the weight decay: 1e-6 of a parameter.
        rest = (found + rate * found_gradient) - (expected + rate * gradient)
        assert rest.abs().max() <= PARAMETER_ROUNDING, name
