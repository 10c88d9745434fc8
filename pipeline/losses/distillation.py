"""Knowledge-distillation losses of Localization Distillation.

Source: Zheng et al., CVPR 2022; repository HikariTJU/LD, ``mmdet/models/losses/ld_loss.py`` and
``kd_loss.py`` (there: ``knowledge_distillation_kl_div_loss``).
"""

from torch import Tensor
from torch.nn import functional


def kd_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Softened KL divergence ``T^2 / n * sum_k q_k (log q_k - log p_k)`` of distributions over ``n`` entries.

    ``p`` and ``q`` are the softmax of student and teacher logits, both ``Tensor[..., n]``, divided by ``T``.
    As in the reference, the sum is *averaged* over the ``n`` bins or classes, so a class-KD term over 4
    classes is 20 times stronger than over COCO's 80 at the same weight. The teacher gets no gradient. A
    ``ValueError`` if the shapes differ, or ``T`` is not above 0; else ``Tensor[...]``, not negative.
    """
    if student_logits.shape != teacher_logits.shape or not temperature > 0:
        shapes = f"{tuple(student_logits.shape)} and {tuple(teacher_logits.shape)}"
        raise ValueError(f"expected logits of one shape and T > 0, but got {shapes} and T = {temperature}")
    log_student = functional.log_softmax(student_logits / temperature, dim=-1)
    log_teacher = functional.log_softmax(teacher_logits.detach() / temperature, dim=-1)
    divergence = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return divergence.mean(dim=-1) * temperature**2
