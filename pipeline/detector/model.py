"""What the rest of this project asks of a detector, whatever framework runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.core.errors import ConfigError
from pipeline.detector.config import GFL_SUPPRESSION, Suppression
from pipeline.detector.head import RawOutputs
from pipeline.views.conventions import Conventions
from pipeline.views.pyramid import Pyramid


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a model predicts, and where: known from its description, before it is loaded."""

    name: str
    """For people."""
    strides: tuple[int, ...]
    """Strides of the levels, px, ascending."""
    bins: int
    """Entries of an edge distribution; bin ``i`` stands for a distance of ``i`` strides."""
    num_classes: int
    conventions: Conventions
    suppression: Suppression = GFL_SUPPRESSION
    input_hw: tuple[int, int] | None = None
    """Size of its input, px, if it is fixed."""

    @property
    def pyramid(self) -> Pyramid:
        """Where it predicts."""
        return self.conventions.pyramid(self.strides)

    def require_scales(self, scales: Sequence[tuple[int, int]], where: str) -> None:
        """Refuse views of another size than the input; a ``ConfigError`` names ``where`` they stand."""
        for scale in scales:
            if self.input_hw and scale != self.input_hw[::-1]:
                wanted = f"{list(self.input_hw[::-1])}, the input of {self.name}"
                raise ConfigError(f"{where}: expected {wanted}, but got {list(scale)}")


class BoxModel(Protocol):
    """A detector that predicts class logits and one distribution per box edge on a grid."""

    @property
    def spec(self) -> ModelSpec:
        """What it predicts."""

    @property
    def device(self) -> torch.device:
        """Where it takes its images."""

    def to_inference(self, device: torch.device) -> None:
        """Make ready to predict on a device, once, before the first call."""

    def __call__(self, images: Tensor) -> RawOutputs:
        """Outputs for ``Tensor[B, 3, H, W]``, preprocessed by its conventions; callable from many threads."""
