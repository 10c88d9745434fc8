"""How a detector's weights are trained, and where a recipe's teacher comes from."""

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.core.config import Count, NonNegative, Positive, Section, Share, Whole
from pipeline.core.errors import ConfigError
from pipeline.detector.config import DetectorConfig, NetworkPrecision
from pipeline.views.geometry import Views

TRAINING_CODE = "pipeline/training"
RANDOM_WEIGHTS = "pipeline/detector/gfl.py"
"""What DVC watches, as ``source``, of a teacher that is trained, or random: one to rehearse with."""


class PhotometricConfig(Section, frozen=True, kw_only=True):
    """How far a view's colors are changed at most, in this order; 0 leaves them as they are."""

    brightness: Share = 0.0
    """A factor is drawn from ``1 - brightness`` to ``1 + brightness``; likewise the next two."""
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of the color circle, in either direction."""
    blur: Annotated[float, Meta(ge=0, le=10)] = 0.0
    """Standard deviation of a Gaussian, px; drawn from 0 to this."""


class TrainConfig(Section, frozen=True, kw_only=True):
    """A training run but for the detector and its targets."""

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
    """Epochs after which the rate falls tenfold, ascending (``step`` only)."""
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
    compile: bool = False
    """``torch.compile`` for the network: after a minute faster on a GPU, with other last bits."""
    group_by_aspect: bool = False
    """Batches hold images of one orientation, as in mmdetection: less padding, another order."""
    photometric: PhotometricConfig | None = None
    """Changes of colors, drawn from the seed, the epoch and the image alone: no teacher sees them."""

    def __post_init__(self) -> None:
        if self.milestones and self.decay != "step":
            raise ConfigError(
                f"milestones: expected none with decay {self.decay!r}, but got {list(self.milestones)}"
            )
        if (*self.milestones, self.epochs) != tuple(sorted({*self.milestones, self.epochs})):
            raise ConfigError(
                f"milestones: expected ascending epochs before {self.epochs}, but got {list(self.milestones)}"
            )


class PrepareTeacherConfig(Section, frozen=True, kw_only=True):
    """Section ``prepare_teacher``."""

    source: str
    """What DVC watches: the weights file to take, the description of an ONNX file, the folder in which one
    of them lies with the files that belong to it, or ``TRAINING_CODE``."""
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
        suffix = Path(self.source).suffix  # a folder may hold either
        described = suffix == ".yaml" or (not suffix and self.train is None)
        if (suffix == ".yaml" and self.detector) or not (described or self.detector):
            raise ConfigError(
                "detector: expected null with the .yaml description of an ONNX file, and only then"
            )

    @property
    def is_onnx(self) -> bool:
        """The teacher is an ONNX file."""
        return self.detector is None

    @property
    def file(self) -> Path:
        """The weights or the description: ``source``, or the one in it; else a ``ConfigError``."""
        source, suffix = Path(self.source), ".yaml" if self.is_onnx else ".safetensors"
        files = sorted(source.glob(f"*{suffix}")) if source.is_dir() else [source]
        if len(files) != 1:
            names = [path.name for path in files]
            raise ConfigError(f"{source}: expected one {suffix} file, but got {names or 'none'}")
        return files[0]
