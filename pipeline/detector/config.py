"""What defines a detector's weights: its architecture."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.core.errors import ConfigError

BACKBONE_CHANNELS: dict[str, tuple[int, int, int]] = {
    "mobilenet_v3_small": (24, 48, 576),
    "resnet10": (128, 256, 512),
    "resnet18": (128, 256, 512),
    "resnet34": (128, 256, 512),
    "resnet50": (512, 1024, 2048),
    "resnet101": (512, 1024, 2048),
    "resnext101_32x4d": (512, 1024, 2048),
}
"""Channels of C3, C4 and C5 (strides 8, 16, 32) of every backbone."""

FIRST_STRIDE = 8
BACKBONE_LEVELS = 3
DCN_STAGES = (2, 3, 4, 5)

LIMITS = {
    "channels": (1, 4096),
    "levels": (BACKBONE_LEVELS, BACKBONE_LEVELS + 2),
    "stacked_convs": (0, 64),
    "norm_groups": (1, 4096),
    "reg_max": (1, 255),
    "num_classes": (1, 65535),
}
"""What is an architecture at all, and no slip of a finger that asks for a terabyte."""


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Architecture of a GFL detector."""

    backbone: str
    """A key of ``BACKBONE_CHANNELS``."""
    dcn_stages: tuple[int, ...]
    """Stages (2-5, as in "c3-c5") whose 3x3 convolutions are deformable."""
    dcn_modulated: bool
    """Deformable convolutions v2 (with masks) instead of v1, which the published R-101-DCN has."""
    channels: int
    """Width of neck and head (256 in the paper)."""
    levels: int
    """Pyramid levels from stride 8 on (5 in the paper: strides 8-128)."""
    stacked_convs: int
    """Convolutions in each tower of the head (4 in the paper)."""
    norm_groups: int
    """Groups of the head's GroupNorm (32 in the paper)."""
    reg_max: int
    """Last bin of an edge distribution, in strides (16 in the paper)."""
    num_classes: int

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONE_CHANNELS:
            known = ", ".join(BACKBONE_CHANNELS)
            raise ConfigError(f"backbone: expected one of {known}, but got {self.backbone!r}")
        for name, (least, most) in LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: expected {least} to {most}, but got {getattr(self, name)}")
        if self.channels % self.norm_groups:
            raise ConfigError(
                f"channels: expected a multiple of norm_groups={self.norm_groups}, but got {self.channels}"
            )
        if not set(self.dcn_stages) <= set(DCN_STAGES):
            raise ConfigError(f"dcn_stages: expected some of {DCN_STAGES}, but got {self.dcn_stages}")
        if self.dcn_stages and not self.backbone.startswith("resn"):
            raise ConfigError(
                f"dcn_stages: only ResNets can be deformable, but backbone is {self.backbone!r}"
            )

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the levels, px."""
        return tuple(FIRST_STRIDE * 2**level for level in range(self.levels))

    @property
    def bins(self) -> int:
        """Entries of an edge distribution."""
        return self.reg_max + 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a description beside the weights and for fingerprints."""
        return {**asdict(self), "dcn_stages": list(self.dcn_stages)}
