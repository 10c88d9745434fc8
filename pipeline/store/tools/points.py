"""Where the points of a stored view lie, without torch: the grid of ``regions.grid`` for single positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.views.types import LabeledView


@dataclass(frozen=True, kw_only=True, eq=False)
class PointPlaces:
    """The points of one view in its pixels.

    Attributes:
        xy: (P, 2) float32, px of the view, see ``data.conventions``.
        stride: (P,) int64, px.
    """

    xy: NDArray[np.float32]
    stride: NDArray[np.int64]


def locate_points(planned: LabeledView, strides: Sequence[int], cell_offset: float = 0.0) -> PointPlaces:
    """From levels and positions to pixels.

    Args:
        planned: A stored view.
        strides: Of the pyramid levels, px.
        cell_offset: Of a point in its cell, strides.
    """
    stride = np.asarray(strides, np.int64)[planned.points.level]
    columns = -(-planned.geometry.padded_hw[1] // stride)
    row, column = np.divmod(planned.points.position.astype(np.int64), columns)
    cells = np.stack([column, row], axis=1) + cell_offset
    xy = (cells * stride[:, None]).astype(np.float32)
    return PointPlaces(xy=xy, stride=stride)
