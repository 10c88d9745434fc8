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


class Integral(nn.Module):
    """Expected value of an edge distribution, in strides."""

    project: Tensor

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.register_buffer("project", torch.arange(reg_max + 1, dtype=torch.float32))

    def forward(self, edge_logits: Tensor) -> Tensor:
        """``Tensor[..., bins]`` to ``Tensor[...]``."""
        return edge_logits.float().softmax(dim=-1) @ self.project


class GFLHead(nn.Module):
    """Two towers shared by all levels, a class convolution and an edge convolution."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, groups = config.channels, config.norm_groups
        towers = [
            nn.ModuleList(
                ConvModule(width, width, 3, norm_groups=groups) for _ in range(config.stacked_convs)
            )
            for _ in range(2)
        ]
        self.cls_convs, self.reg_convs = towers
        self.gfl_cls = nn.Conv2d(width, config.num_classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(width, EDGES * config.bins, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(config.levels))
        self.integral = Integral(config.reg_max)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        nn.init.constant_(
            cast(Tensor, self.gfl_cls.bias), -math.log((1 - PRIOR_PROBABILITY) / PRIOR_PROBABILITY)
        )
        nn.init.zeros_(cast(Tensor, self.gfl_reg.bias))

    def forward(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Class ``Tensor[B, C, H, W]`` and edge ``Tensor[B, 4 * bins, H, W]`` logits of every level."""
        return [self._level(x, scale) for x, scale in zip(features, self.scales, strict=True)]

    def _level(self, x: Tensor, scale: nn.Module) -> tuple[Tensor, Tensor]:
        cls_tower, reg_tower = x, x
        for conv in self.cls_convs:
            cls_tower = conv(cls_tower)
        for conv in self.reg_convs:
            reg_tower = conv(reg_tower)
        return self.gfl_cls(cls_tower), scale(self.gfl_reg(reg_tower))


def flatten_levels(outputs: Sequence[tuple[Tensor, Tensor]]) -> RawOutputs:
    """Concatenate the levels' maps into one row per position, row-major in each level."""
    cls_logits = torch.cat([_rows(cls_map) for cls_map, _ in outputs], dim=1)
    edge_logits = torch.cat([_rows(edge_map) for _, edge_map in outputs], dim=1)
    return RawOutputs(
        cls_logits=cls_logits,
        edge_logits=edge_logits.reshape(*edge_logits.shape[:2], EDGES, -1),
        sizes=tuple((cls_map.shape[-2], cls_map.shape[-1]) for cls_map, _ in outputs),
    )


def _rows(level_map: Tensor) -> Tensor:
    """``Tensor[B, K, H, W]`` to ``Tensor[B, H * W, K]``."""
    return level_map.permute(0, 2, 3, 1).flatten(1, 2)
