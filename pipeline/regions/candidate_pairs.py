"""Pairs of anchors and boxes that can overlap: a window of cells per level around every box.

Everything that the regions need of a pair is zero where anchor and box do not meet, and of the millions of
pairs of a view few do.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.views.pyramid import ANCHOR_SCALE, Grid

ANCHOR_RADIUS_CELLS = ANCHOR_SCALE // 2
"""An anchor reaches this many cells to each side of its point."""


class CandidatePairs(NamedTuple):
    """``M`` pairs of an anchor and a box; every pair that overlaps is among them, and few others."""

    position: Tensor
    """``LongTensor[M]``: flat."""
    box: Tensor
    """``LongTensor[M]``."""


def candidate_pairs(grid: Grid, boxes_xyxy: Tensor) -> CandidatePairs:
    """Pairs of the anchors of all levels and the boxes ``Tensor[G, 4]`` px around which they lie."""
    pyramid, device = grid.pyramid, boxes_xyxy.device
    sizes, strides = torch.tensor(grid.sizes, device=device), torch.tensor(pyramid.strides, device=device)
    cells = boxes_xyxy[None] / strides[:, None, None] - pyramid.point_offset
    first = (cells[..., [1, 0]].floor().long() - ANCHOR_RADIUS_CELLS).clamp_(min=0)
    beyond = (cells[..., [3, 2]].ceil().long() + ANCHOR_RADIUS_CELLS + 1).minimum(sizes[:, None])
    return _list_windows(first.flatten(0, 1), (beyond - first).clamp_(min=0).flatten(0, 1), grid)


def _list_windows(first: Tensor, extent: Tensor, grid: Grid) -> CandidatePairs:
    """Cells, row by row, of windows from ``first`` ``(row, column)`` with ``extent`` ``(rows, columns)``."""
    boxes = len(first) // len(grid.sizes)
    widths = first.new_tensor([width for _, width in grid.sizes]).repeat_interleave(boxes)
    corners = first.new_tensor(grid.starts).repeat_interleave(boxes) + first[:, 1]
    window = torch.arange(len(first), device=first.device).repeat_interleave(extent[:, 0])
    starts = corners[window] + _ranges(first[:, 0], extent[:, 0]) * widths[window]
    columns = extent[:, 1][window]
    return CandidatePairs(
        position=_ranges(starts, columns), box=(window % max(1, boxes)).repeat_interleave(columns)
    )


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """``start, start + 1, ..., start + length - 1`` for all of ``LongTensor[R]``, one after the other."""
    shifts = starts - (lengths.cumsum(0) - lengths)
    return torch.arange(int(lengths.sum()), device=starts.device) + shifts.repeat_interleave(lengths)
