"""How a detector's weights are trained."""

from dataclasses import dataclass
from typing import Literal

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
    precision: Literal["float32", "bfloat16", "float16"]
    """Of the network's forward and backward pass; weights, losses and the update are float32 in each."""
    group_by_aspect: bool
    """Batches hold images of one orientation, as in mmdetection: less padding, another order."""
    schedule: ScheduleConfig
