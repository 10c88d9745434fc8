"""A student: what it is, how it is trained, what it is taught."""

import math
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.core.config import Count, Section, Whole
from pipeline.core.errors import ConfigError
from pipeline.detector.config import DetectorConfig
from pipeline.losses.config import DistillationConfig
from pipeline.training.config import TrainConfig
from pipeline.views.geometry import check_scale


class ValidationConfig(Section, frozen=True, kw_only=True):
    """How a student is evaluated while it is trained."""

    split: Literal["train", "val"]
    """``train`` validates nothing. DVC's dependency, so it is the same for all students of a recipe."""
    every: Count = 1
    """Epochs; the last one counts in any case."""
    keep: Literal["last", "best"] = "last"
    """Which weights the student ends with: those of the last epoch, or of the highest AP."""
    scale: tuple[int, int] | None = None
    """Test scale ``(long, short)``, px."""

    def __post_init__(self) -> None:
        if self.scale:
            check_scale(self.scale, "scale")
        elif self.split == "val":
            raise ConfigError("scale: expected (long, short) in px to validate at, but got null")


class WeightSchedule(Section, frozen=True, kw_only=True):
    """The weight of a distillation term by epoch; constant by default."""

    start: Whole = 0
    """Epochs before it counts."""
    end: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of its weight that it falls to by the last epoch's end, along half a cosine (YOLOv6: 0.01)."""

    def factor(self, epoch: int, epochs: int) -> float:
        """What the weight is multiplied by, after ``epoch`` of ``epochs`` have finished."""
        if epoch < self.start:
            return 0.0
        passed = (epoch - self.start) / (epochs - self.start)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * passed)) / 2


class SchedulesConfig(Section, frozen=True, kw_only=True):
    """A schedule for each weight of ``loss``."""

    ld: WeightSchedule = WeightSchedule()
    vlr: WeightSchedule = WeightSchedule()
    kd: WeightSchedule = WeightSchedule()
    vlr_kd: WeightSchedule = WeightSchedule()
    bckd_cls: WeightSchedule = WeightSchedule()
    bckd_box: WeightSchedule = WeightSchedule()


class StudentConfig(Section, frozen=True, kw_only=True):
    """What ``student`` and ``students.NAME`` say together."""

    detector: DetectorConfig
    train: TrainConfig
    loss: DistillationConfig
    validation: ValidationConfig = ValidationConfig(split="train")
    """Evaluation while it is trained; DVC reads the recipe's own."""
    schedules: SchedulesConfig = SchedulesConfig()

    def __post_init__(self) -> None:
        for name in self.schedules.__struct_fields__:
            start = getattr(self.schedules, name).start
            if start >= self.train.epochs:
                raise ConfigError(
                    f"schedules.{name}.start: expected less than {self.train.epochs} epochs, but got {start}"
                )
