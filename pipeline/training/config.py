"""How a detector's weights are trained."""

from typing import Annotated, Literal

from msgspec import Meta

from pipeline.core.config import Count, NonNegative, Positive, Section, Whole
from pipeline.core.errors import ConfigError
from pipeline.detector.config import NetworkPrecision


class TrainConfig(Section, frozen=True, kw_only=True):
    """Everything about a training run but the detector and its targets."""

    epochs: Count
    batch_size: Count
    """Images of a step, over all processes."""
    optimizer: Literal["sgd", "adamw"]
    """``sgd`` with momentum 0.9 as in the paper; ``adamw`` trains faster from random weights."""
    learning_rate: Positive
    weight_decay: NonNegative
    warmup_steps: Whole
    decay: Literal["step", "cosine"]
    milestones: tuple[Count, ...] = ()
    """Epochs after which the rate falls tenfold (``step`` only)."""
    max_grad_norm: Positive | None = None
    seed: Whole = 0
    """Seed of the initial weights, the order of the images and the choice of views."""
    pretrained: bool = False
    """The backbone starts from torchvision's ImageNet weights."""
    frozen_stages: Annotated[int, Meta(ge=-1, le=4)] = -1
    """Stem and this many stages get no gradient; -1 freezes nothing (no pretrained weights)."""
    norm_eval: bool = False
    """BatchNorm uses running statistics (for pretrained backbones)."""
    precision: NetworkPrecision = "float32"
    """Precision of the forward and backward pass; weights, losses and the update are always float32."""
    group_by_aspect: bool = False
    """Batches hold images of one orientation, as in mmdetection: less padding, another order."""

    def __post_init__(self) -> None:
        if any(milestone >= self.epochs for milestone in self.milestones):
            raise ConfigError(
                f"milestones: expected epochs before {self.epochs}, but got {list(self.milestones)}"
            )
