"""What defines a detector's weights: its architecture."""

from typing import Annotated, Literal

from msgspec import Meta

from pipeline.core.config import Count, Section
from pipeline.core.errors import ConfigError

Backbone = Literal[
    "mobilenet_v3_small", "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnext101_32x4d"
]

NetworkPrecision = Literal["float32", "bfloat16", "float16"]
"""In how many bits a network computes; its weights, and all that reads its outputs, stay float32."""


class DetectorConfig(Section, frozen=True, kw_only=True):
    """Architecture of a GFL detector; no bound is near, but no slip of a finger takes a terabyte."""

    backbone: Backbone
    dcn_stages: tuple[Annotated[int, Meta(ge=2, le=5)], ...] = ()
    """Stages (2-5, as in "c3-c5") whose 3x3 convolutions are deformable."""
    dcn_modulated: bool = False
    """Deformable convolutions v2 (with masks) instead of v1, which the published R-101-DCN has."""
    channels: Annotated[int, Meta(ge=1, le=4096)]
    """Width of neck and head (256 in the paper)."""
    levels: Annotated[int, Meta(ge=3, le=5)]
    """Pyramid levels from stride 8 on (5 in the paper: strides 8-128)."""
    stacked_convs: Annotated[int, Meta(ge=0, le=64)]
    """Convolutions in each tower of the head (4 in the paper)."""
    norm_groups: Annotated[int, Meta(ge=1, le=4096)]
    """Groups of the head's GroupNorm (32 in the paper)."""
    reg_max: Annotated[int, Meta(ge=1, le=255)] = 16
    """Last bin of an edge distribution, in strides (16 in the paper)."""
    num_classes: Annotated[int, Meta(ge=1, le=65535)]

    def __post_init__(self) -> None:
        if self.channels % self.norm_groups:
            raise ConfigError(
                f"channels: expected a multiple of norm_groups={self.norm_groups}, but got {self.channels}"
            )
        if self.dcn_stages and not self.backbone.startswith("resn"):
            raise ConfigError(f"dcn_stages: expected none for {self.backbone}, but got {self.dcn_stages}")

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, px."""
        return tuple(8 * 2**level for level in range(self.levels))

    @property
    def bins(self) -> int:
        """Entries of an edge distribution."""
        return self.reg_max + 1


class Suppression(Section, frozen=True, kw_only=True):
    """How detections are chosen among a model's boxes."""

    score_threshold: Annotated[float, Meta(ge=0, lt=1)]
    """Boxes of lower scores are dropped."""
    iou: Annotated[float, Meta(gt=0, le=1)]
    """The surer of two boxes of a class stays, if they overlap by more than this."""
    max_detections: Count
    """Detections of an image, over all classes."""
    pre_nms_top: Count
    """Positions of a level that are kept before NMS, by their best class (``nms_pre``)."""


GFL_SUPPRESSION = Suppression(score_threshold=0.05, iou=0.6, max_detections=100, pre_nms_top=1000)
"""``test_cfg`` of the GFL configurations."""
