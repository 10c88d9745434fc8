"""What the rest of this project asks of a detector, whatever framework runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.core.config import Section
from pipeline.core.errors import ConfigError
from pipeline.detector.head import RawOutputs
from pipeline.views.conventions import Conventions
from pipeline.views.pyramid import Pyramid


class Suppression(Section, frozen=True, kw_only=True):
    """How detections are chosen among a model's boxes."""

    score_threshold: float
    """Boxes of lower scores are dropped."""
    iou: float
    """Of two boxes of a class that overlap by more, the surer stays."""
    max_detections: int
    """Of an image, over all classes."""
    pre_nms_top: int
    """Positions of a level that are kept before NMS, by their best class (``nms_pre``)."""

    def __post_init__(self) -> None:
        if not 0 <= self.score_threshold < 1:
            raise ConfigError(f"score_threshold: expected 0 to 1, but got {self.score_threshold}")
        if not 0 < self.iou <= 1:
            raise ConfigError(f"iou: expected 0 to 1, but got {self.iou}")
        for name in ("max_detections", "pre_nms_top"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected 1 or more, but got {getattr(self, name)}")


GFL_SUPPRESSION = Suppression(score_threshold=0.05, iou=0.6, max_detections=100, pre_nms_top=1000)
"""``test_cfg`` of the GFL configurations."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a model predicts, and where: known from its description, before it is loaded."""

    name: str
    """For people."""
    strides: tuple[int, ...]
    """Of the levels, px, ascending."""
    bins: int
    """Entries of an edge distribution; bin ``i`` stands for a distance of ``i`` strides."""
    num_classes: int
    conventions: Conventions
    suppression: Suppression
    input_hw: tuple[int, int] | None
    """Size of its input, px, if it is fixed."""

    @property
    def pyramid(self) -> Pyramid:
        """Where it predicts."""
        return self.conventions.pyramid(self.strides)

    def require_scales(self, scales: Sequence[tuple[int, int]], where: str) -> None:
        """Refuse views that the model cannot take.

        Raises:
            ConfigError: Its input has another size than one of the scales; names ``where`` they stand.
        """
        if self.input_hw is None:
            return
        height, width = self.input_hw
        for scale in scales:
            if scale != (width, height):
                raise ConfigError(
                    f"{where}: expected {[width, height]}, the input of {self.name}, but got {list(scale)}"
                )


class BoxModel(Protocol):
    """A detector that predicts class logits and one distribution per box edge on a grid."""

    @property
    def spec(self) -> ModelSpec:
        """What it predicts."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it takes its images."""
        ...

    def place(self, device: torch.device) -> None:
        """Make ready to predict on a device, once, before the first call."""
        ...

    def __call__(self, images: Tensor) -> RawOutputs:
        """Outputs for ``Tensor[B, 3, H, W]``, preprocessed by its conventions; callable from many threads."""
        ...
