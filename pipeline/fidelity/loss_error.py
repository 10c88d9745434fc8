"""How far approximate teacher logits move the losses that read them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.losses.distillation import kd_divergence

STUDENT_NOISE = 1.0
"""Standard deviation, in logits, of the noise that makes a stand-in student out of the teacher.

The gradient that an error is compared with vanishes as the student approaches the teacher: the end of
training is the hardest moment. There the student ``plain`` of the default run is 0.8-0.9 logits (root mean
square, constants per edge removed) from its teacher, and its errors at T = 10 equal those of this noise.
"""


@dataclass(frozen=True, kw_only=True)
class LossErrors:
    """Exact logits against approximate ones, over all rows: relative errors of the loss and its gradient."""

    kl_mean: float
    """KL of approximate to exact distributions at the temperature, nats."""
    kl_max: float
    loss_error: float
    gradient_error: float
    """Of the gradient by the student's logits."""
    gradient_cosine: float


def stand_in_student(teacher_logits: Tensor, seed: int) -> Tensor:
    """The teacher's logits with noise, see ``STUDENT_NOISE``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(teacher_logits.shape, generator=generator, dtype=torch.float64)
    return teacher_logits.double() + STUDENT_NOISE * noise


WeightedLogits = tuple[Tensor, Tensor]
"""``Tensor[R, n, k]``: n distributions over k entries a row, and ``Tensor[R]``: what the row weighs."""


def measure_loss_error(
    exact: WeightedLogits, approximate: WeightedLogits, student: Tensor, temperature: float
) -> LossErrors:
    """Errors of the loss ``sum over rows of weight * mean over n of kd_divergence``, in float64.

    ``student`` is ``Tensor[R, n, k]``; ``approximate`` is ``exact`` up to a constant per distribution.
    """
    p, q = ((logits.double() / temperature).log_softmax(dim=-1) for logits, _ in (exact, approximate))
    divergence = (p.exp() * (p - q)).sum(dim=-1)
    true_loss, true_gradient = _loss_and_gradient(student, exact, temperature)
    loss, gradient = _loss_and_gradient(student, approximate, temperature)
    some = divergence if divergence.numel() else torch.zeros(1)
    return LossErrors(
        kl_mean=float(some.mean()),
        kl_max=float(some.max()),
        loss_error=ratio(abs(loss - true_loss), true_loss),
        gradient_error=ratio(float((gradient - true_gradient).norm()), float(true_gradient.norm())),
        gradient_cosine=float(torch.cosine_similarity(gradient.flatten(), true_gradient.flatten(), dim=0)),
    )


def _loss_and_gradient(student: Tensor, teacher: WeightedLogits, temperature: float) -> tuple[float, Tensor]:
    logits, weights = teacher
    student = student.double().detach().requires_grad_()
    divergence = kd_divergence(student, logits.double(), temperature).mean(dim=1)
    loss = (divergence * weights.double()).sum()
    (gradient,) = torch.autograd.grad(loss, student)
    return loss.item(), gradient


def ratio(part: float | Tensor, whole: float | Tensor) -> float:
    """Their quotient; 0 of nothing."""
    return float(part / whole) if whole else 0.0
