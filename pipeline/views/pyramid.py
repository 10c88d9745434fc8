"""Positions, points and anchors of a feature pyramid.

The point of cell ``(row, column)`` on a level of stride ``s`` is ``((column + o) * s, (row + o) * s)`` px,
with an offset ``o`` that goes with the detector: 0 for GFL (mmdetection ``AnchorGenerator`` with
``center_offset=0``), 0.5 for YOLO.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ANCHOR_SCALE = 8
"""Side of the square anchor in strides (``octave_base_scale`` of the GFL configurations)."""

Size = tuple[int, int]
"""``(height, width)``, in pixels of an image or in cells of a level."""


def level_sizes(image_hw: Size, strides: Sequence[int]) -> list[Size]:
    """Cells ``(height, width)`` of every level for an image of ``image_hw`` px, each rounded up."""
    height, width = image_hw
    return [(-(-height // stride), -(-width // stride)) for stride in strides]


def level_lengths(sizes: Sequence[Size]) -> list[int]:
    """Number of positions of every level."""
    return [height * width for height, width in sizes]


def level_points(
    size: Size, stride: int, device: torch.device | str = "cpu", cell_offset: float = 0.0
) -> Tensor:
    """Points ``(x, y)`` of one level in px, row-major: ``Tensor[height * width, 2]``."""
    height, width = size
    y = (torch.arange(height, device=device, dtype=torch.float32) + cell_offset) * stride
    x = (torch.arange(width, device=device, dtype=torch.float32) + cell_offset) * stride
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 2)


def pyramid_points(
    sizes: Sequence[Size],
    strides: Sequence[int],
    device: torch.device | str = "cpu",
    cell_offset: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Points of all levels, level after level.

    Returns:
        Points in px ``Tensor[N, 2]`` and the stride of each point's level ``Tensor[N]``.
    """
    pairs = list(zip(sizes, strides, strict=True))
    points = torch.cat([level_points(size, stride, device, cell_offset) for size, stride in pairs])
    lengths = torch.tensor(level_lengths(sizes), device=device)
    return points, torch.tensor(strides, device=device, dtype=torch.float32).repeat_interleave(lengths)


def square_anchors(points: Tensor, strides: Tensor) -> Tensor:
    """Square anchors of side ``8 * stride`` centered on the points.

    Args:
        points: ``Tensor[N, 2]``, px.
        strides: ``Tensor[N]``, px.

    Returns:
        ``Tensor[N, 4]`` as ``(x1, y1, x2, y2)`` px.
    """
    half = (strides * (ANCHOR_SCALE / 2))[:, None]
    return torch.cat([points - half, points + half], dim=1)


def valid_cells(sizes: Sequence[Size], strides: Sequence[int], padded_hw: Size) -> Tensor:
    """Cells that lie in an image padded to ``padded_hw`` within a batch whose grid has ``sizes``.

    Returns:
        ``BoolTensor[N]``; a cell outside gets no target and no weight.
    """
    masks = []
    for (height, width), (rows, columns) in zip(sizes, level_sizes(padded_hw, strides), strict=True):
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[:rows, :columns] = True
        masks.append(mask.flatten())
    return torch.cat(masks)
