"""Weights and temperatures of the distillation losses."""

from typing import Annotated

from msgspec import Meta

from pipeline.core.config import NonNegative, Section

Temperature = Annotated[float, Meta(gt=0, le=1000)]
"""Beyond it all distributions are uniform, and their divergence is rounding alone."""


class DistillationConfig(Section, frozen=True, kw_only=True):
    """A term of weight 0 is not computed, and all 0 is a plain student."""

    ld_temperature: Temperature
    """Temperature of both localization terms (10 in the paper)."""
    kd_temperature: Temperature
    """Temperature of the class distillation (2)."""
    ld_weight: NonNegative = 0.0
    """Localization distillation on the main region (0.25 in the paper's recipes)."""
    vlr_weight: NonNegative = 0.0
    """Localization distillation on the valuable region (0.25)."""
    kd_weight: NonNegative = 0.0
    """Class distillation on the main region (10; a mean over the classes, so their number matters)."""
    vlr_kd_weight: NonNegative = 0.0
    """Class distillation in the valuable region (10); needs ``cache_teacher.valuable_classes``."""
    bckd_cls_weight: NonNegative = 0.0
    """BCKD's class term at every position (1 in its paper); needs a store with ``cache_teacher.dense``."""
    bckd_box_weight: NonNegative = 0.0
    """BCKD's box term, likewise (4)."""

    @property
    def terms(self) -> int:
        """Number of terms that are computed."""
        return sum(getattr(self, name) > 0 for name in self.__struct_fields__ if name.endswith("_weight"))

    @property
    def reads_teacher(self) -> bool:
        """Whether any term is computed: each needs the teacher's outputs."""
        return self.terms > 0

    @property
    def reads_dense(self) -> bool:
        """Whether any term needs the teacher's outputs at every position."""
        return self.bckd_cls_weight > 0 or self.bckd_box_weight > 0
