"""The GFL's pyramid and its head: class logits and one discrete distribution per box edge.

Sources: Lin et al., CVPR 2017; Li et al., "Generalized Focal Loss", NeurIPS 2020; mmdetection's
``necks/fpn.py`` with ``add_extra_convs='on_output'``, and ``dense_heads/gfl_head.py``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.config import DetectorConfig

EDGES = 4
"""Left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class RawOutputs:
    """Head outputs, positions flattened level after level."""

    cls_logits: Tensor
    """``Tensor[B, N, C]`` before the sigmoid."""
    edge_logits: Tensor
    """``Tensor[B, N, 4, bins]``, edges l, t, r, b."""
    sizes: tuple[tuple[int, int], ...]
    """Cells ``(height, width)`` of every level; their products sum to ``N``."""


class ConvModule(nn.Module):
    """A convolution under mmdetection's parameter name, optionally with GroupNorm and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, norm_groups: int = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm_groups)
        self.gn = nn.GroupNorm(norm_groups, out_channels) if norm_groups else None

    def forward(self, x: Tensor) -> Tensor:
        """``Tensor[B, C, H, W]`` to ``Tensor[B, C', H', W']``."""
        x = self.conv(x)
        return x if self.gn is None else functional.relu(_normalize_groups(x, self.gn))


def _normalize_groups(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """In the network's precision: CUDA's autocast would take float32, and twice the memory's traffic."""
    if x.dtype == norm.weight.dtype or not x.is_cuda:
        return cast(Tensor, norm(x))
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    with torch.autocast("cuda", enabled=False):
        return functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)


class FeaturePyramid(nn.Module):
    """FPN on C3-C5 and stride-2 convolutions above, without torchvision's ReLU between them."""

    def __init__(self, in_channels: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1) for width in in_channels)
        self.fpn_convs = nn.ModuleList(
            [ConvModule(channels, channels, 3) for _ in in_channels]
            + [ConvModule(channels, channels, 3, stride=2) for _ in range(levels - len(in_channels))]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(cast(Tensor, module.bias))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """C3-C5 to one ``Tensor[B, channels, H, W]`` a level."""
        merged = [conv(feature) for conv, feature in zip(self.lateral_convs, features, strict=True)]
        for finer in range(len(merged) - 2, -1, -1):
            size = merged[finer].shape[-2:]
            merged[finer] = merged[finer] + functional.interpolate(merged[finer + 1], size, mode="nearest")
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, merged, strict=False)]
        for conv in self.fpn_convs[len(merged) :]:
            outputs.append(conv(outputs[-1]))
        return outputs


class Scale(nn.Module):
    """One learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """``x * scale``."""
        return x * self.scale


class GFLHead(nn.Module):
    """Two towers shared by all levels, a class convolution and an edge convolution."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.cls_convs, self.reg_convs = _tower(config), _tower(config)
        self.gfl_cls = nn.Conv2d(config.channels, config.num_classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(config.channels, EDGES * config.bins, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(config.levels))
        self.integral = nn.Module()  # of mmdetection's state dicts; see ``expected_distances``
        self.integral.register_buffer("project", torch.arange(config.bins, dtype=torch.float32))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        # Scores of 0.01: the focal loss's prior of the reference.
        nn.init.constant_(cast(Tensor, self.gfl_cls.bias), -math.log((1 - 0.01) / 0.01))
        nn.init.zeros_(cast(Tensor, self.gfl_reg.bias))

    def forward(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Class ``Tensor[B, C, H, W]`` and edge ``Tensor[B, 4 * bins, H, W]`` logits of every level."""
        return [
            (self.gfl_cls(self.cls_convs(x)), scale(self.gfl_reg(self.reg_convs(x))))
            for x, scale in zip(features, self.scales, strict=True)
        ]


def _tower(config: DetectorConfig) -> nn.Sequential:
    width, groups = config.channels, config.norm_groups
    return nn.Sequential(
        *(ConvModule(width, width, 3, norm_groups=groups) for _ in range(config.stacked_convs))
    )


def flatten_levels(outputs: Sequence[tuple[Tensor, Tensor]]) -> RawOutputs:
    """Concatenate the levels' maps into one row per position, row-major in each level."""
    cls_logits, edge_logits = (
        torch.cat([level_map.permute(0, 2, 3, 1).flatten(1, 2) for level_map in maps], dim=1)
        for maps in zip(*outputs, strict=True)
    )
    return RawOutputs(
        cls_logits=cls_logits,
        edge_logits=edge_logits.reshape(*edge_logits.shape[:2], EDGES, -1),
        sizes=tuple((cls_map.shape[-2], cls_map.shape[-1]) for cls_map, _ in outputs),
    )
