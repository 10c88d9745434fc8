"""Where a recipe's teacher comes from."""

from pathlib import Path

from pipeline.core.config import Section
from pipeline.core.errors import ConfigError
from pipeline.detector.config import DetectorConfig
from pipeline.training.config import TrainConfig
from pipeline.views.geometry import Views

TRAINING_CODE = "pipeline/training"
"""What DVC watches where the teacher is trained; each of its files is a dependency anyway."""

RANDOM_WEIGHTS = "pipeline/detector/gfl.py"
"""As ``source``, it is what builds a detector with random weights: a teacher to rehearse with."""


class PrepareTeacherConfig(Section, frozen=True, kw_only=True):
    """Section ``prepare_teacher``."""

    source: str
    """What DVC watches: the weights file to take, the description of an ONNX file, or ``TRAINING_CODE``."""
    detector: DetectorConfig | None = None
    """Null for an ONNX file, whose description says it all."""
    views: Views | None = None
    """Augmentations of its training; null takes ``source``."""
    train: TrainConfig | None = None
    """Null takes ``source``."""

    def __post_init__(self) -> None:
        if (self.views is None) != (self.train is None):
            raise ConfigError("expected views and train both, to train, or both null, to take source")
        if (self.train is None) != (self.source != TRAINING_CODE):
            raise ConfigError(
                f"source: expected {TRAINING_CODE} to train, or a weights file with views and train null, "
                f"but got {self.source!r}"
            )
        if (self.detector is None) != self.is_onnx:
            raise ConfigError(
                "detector: expected null with the .yaml description of an ONNX file, and only then"
            )

    @property
    def is_onnx(self) -> bool:
        """The teacher is an ONNX file."""
        return Path(self.source).suffix == ".yaml"
