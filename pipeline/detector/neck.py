"""Feature pyramid network with extra levels from the last output.

Source: Lin et al., CVPR 2017; mmdetection ``necks/fpn.py`` with ``add_extra_convs='on_output'``. Own
code, because torchvision's pyramid puts a ReLU between its extra levels, which the reference does not.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvModule(nn.Module):
    """A convolution under mmdetection's parameter name, optionally with GroupNorm and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, norm_groups: int = 0
    ) -> None:
        super().__init__()
        bias = norm_groups == 0
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)
        self.gn = nn.GroupNorm(norm_groups, out_channels) if norm_groups else None

    def forward(self, x: Tensor) -> Tensor:
        """``Tensor[B, C, H, W]`` to ``Tensor[B, C', H', W']``."""
        x = self.conv(x)
        return x if self.gn is None else functional.relu(_normalize_groups(x, self.gn))


def _normalize_groups(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """In the network's precision; CUDA's autocast would take float32, and twice the memory's traffic."""
    if x.dtype == norm.weight.dtype or not x.is_cuda:
        return cast(Tensor, norm(x))
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    with torch.autocast("cuda", enabled=False):
        return functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)


class FeaturePyramid(nn.Module):
    """FPN on C3, C4, C5 and stride-2 convolutions for the levels above."""

    def __init__(self, in_channels: Sequence[int], channels: int, levels: int) -> None:
        super().__init__()
        extra = levels - len(in_channels)
        self.lateral_convs = nn.ModuleList(ConvModule(width, channels, 1) for width in in_channels)
        self.fpn_convs = nn.ModuleList(
            [ConvModule(channels, channels, 3) for _ in in_channels]
            + [ConvModule(channels, channels, 3, stride=2) for _ in range(extra)]
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
            merged[finer] = merged[finer] + functional.interpolate(
                merged[finer + 1], size=size, mode="nearest"
            )
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, merged, strict=False)]
        for conv in self.fpn_convs[len(merged) :]:
            outputs.append(conv(outputs[-1]))
        return outputs
