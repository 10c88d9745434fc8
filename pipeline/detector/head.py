"""The GFL head: class logits and one discrete distribution per box edge.

Source: Li et al., "Generalized Focal Loss", NeurIPS 2020; mmdetection ``dense_heads/gfl_head.py``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pipeline.detector.config import DetectorConfig
from pipeline.detector.neck import ConvModule

EDGES = 4
"""Left, top, right, bottom."""

PRIOR_PROBABILITY = 0.01
"""Initial score of every class (focal-loss prior of the reference)."""


@dataclass(frozen=True, kw_only=True)
class RawOutputs:
    """Head outputs, positions flattened level after level."""

    cls_logits: Tensor
    """``Tensor[B, N, C]`` before the sigmoid."""
    edge_logits: Tensor
    """``Tensor[B, N, 4, bins]``, edges l, t, r, b."""
    sizes: tuple[tuple[int, int], ...]
    """Cells ``(height, width)`` of every level; their products sum to ``N``."""


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
        prior = -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        nn.init.constant_(cast(Tensor, self.gfl_cls.bias), prior)
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
