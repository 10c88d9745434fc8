"""How a store is compared with the live teacher."""

from pathlib import Path

from msgspec.structs import asdict

from pipeline.core.config import PARAMS, Count, NonNegative, Positive, Section, Whole, load_section
from pipeline.losses.config import DistillationConfig


class FidelityBounds(Section, frozen=True, kw_only=True):
    """Section ``verify_cache``: how many views are checked, and the relative errors still accepted."""

    views: Count = 64
    seed: Whole = 0
    """Draws the views, and the noise of a stand-in student."""
    max_kl: NonNegative = 0.0001
    """Mean KL of stored to live edge distributions at ``temperature``, nats."""
    max_loss_error: NonNegative = 0.005
    """Of the LD loss, and of the class-KD loss."""
    max_gradient_error: NonNegative = 0.02
    """Of the gradient of either by the student's logits."""
    max_dense_loss_error: NonNegative = 0.05
    """Of BCKD's class term and of its box term, where a store has dense arrays."""
    max_dense_gradient_error: NonNegative = 0.15
    """Of the gradient of either by a last layer."""
    max_share_below_floor: NonNegative = 0.05
    """Share of BCKD's box loss at positions whose scores are all below the floor."""


class FidelityConfig(FidelityBounds, frozen=True, kw_only=True):
    """The section, and the temperatures that the students share, stated once in ``student.loss``."""

    temperature: Positive
    cls_temperature: Positive


BOUNDED = {
    "max_kl": ("kl_mean",),
    "max_loss_error": ("loss_error", "kd_loss_error"),
    "max_gradient_error": ("gradient_error", "kd_gradient_error"),
    "max_dense_loss_error": ("bckd_cls_loss_error", "bckd_box_loss_error"),
    "max_dense_gradient_error": ("bckd_cls_last_layer_error", "bckd_box_last_layer_error"),
    "max_share_below_floor": ("box_share_below_floor",),
}
"""The figures that each bound holds for."""


def load_fidelity(path: Path = PARAMS) -> FidelityConfig:
    """Read ``verify_cache`` and the temperatures of ``student.loss``; errors as of :func:`load_section`."""
    bounds = load_section(FidelityBounds, "verify_cache", path)
    loss = load_section(DistillationConfig, "student.loss", path)
    return FidelityConfig(
        **asdict(bounds), temperature=loss.ld_temperature, cls_temperature=loss.kd_temperature
    )
