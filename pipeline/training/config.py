"""How a detector's weights are trained."""

from dataclasses import dataclass

from pipeline.core.errors import ConfigError
from pipeline.detector.amp import NetworkPrecision
from pipeline.training.schedule import ScheduleConfig

LIMITS = {"seed": (0, 2**31 - 1), "frozen_stages": (-1, 4)}
"""A seed shares 64 bits with the number of the epoch."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything about a training run but the detector and its targets."""

    seed: int
    """Of the initial weights, the order of the images and the choice of views."""
    pretrained: bool
    """The backbone starts from torchvision's ImageNet weights."""
    frozen_stages: int
    """Stem and this many stages get no gradient; -1 freezes nothing (no pretrained weights)."""
    norm_eval: bool
    """BatchNorm uses running statistics (for pretrained backbones)."""
    precision: NetworkPrecision
    """Of the network's forward and backward pass; weights, losses and the update are float32 in each."""
    group_by_aspect: bool
    """Batches hold images of one orientation, as in mmdetection: less padding, another order."""
    schedule: ScheduleConfig

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: expected {least} to {most}, but got {getattr(self, name)}")
