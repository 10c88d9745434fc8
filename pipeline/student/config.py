"""A student: what it is, how it is trained, what it is taught."""

from typing import Literal

from pipeline.core.config import Count, Section
from pipeline.core.errors import ConfigError
from pipeline.detector.config import DetectorConfig
from pipeline.losses.config import DistillationConfig
from pipeline.training.config import TrainConfig
from pipeline.views.geometry import check_scale


class ValidationConfig(Section, frozen=True, kw_only=True):
    """How a student is evaluated while it is trained."""

    split: Literal["train", "val"]
    """``val`` validates on that split; ``train`` reads no other images than training, and validates nothing.
    DVC's dependency of the training on its data, so it is the same for all students of a recipe."""
    every: Count = 1
    """Epochs; the last one counts in any case."""
    keep: Literal["last", "best"] = "last"
    """Which weights the student ends with: those of the last epoch, or of the highest AP."""
    scale: tuple[int, int] | None = None
    """Test scale ``(long, short)``, px."""

    def __post_init__(self) -> None:
        if self.scale:
            check_scale(self.scale, "scale")
        elif self.enabled:
            raise ConfigError("scale: expected (long, short) in px to validate at, but got null")

    @property
    def enabled(self) -> bool:
        """Epochs are validated."""
        return self.split == "val"


class StudentConfig(Section, frozen=True, kw_only=True):
    """What ``student`` and ``students.NAME`` say together."""

    detector: DetectorConfig
    train: TrainConfig
    loss: DistillationConfig
    validation: ValidationConfig = ValidationConfig(split="train")
    """Evaluation while it is trained; DVC reads the recipe's own."""
