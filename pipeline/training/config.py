"""How a detector's weights are trained."""

from dataclasses import dataclass

from pipeline.training.schedule import ScheduleConfig


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
    schedule: ScheduleConfig
