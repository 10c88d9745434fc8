"""Where the points of a stored view lie, without torch: the grid of ``regions.grid`` for single positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.cache.records import PlannedView


@dataclass(frozen=True, kw_only=True, eq=False)
class PointPlaces:
    """The points of one view in its pixels.

    Attributes:
        xy: (P, 2) float32, px of the view: ``(column * stride, row * stride)``, no half-cell offset.
        stride: (P,) int64, px.
    """

    xy: NDArray[np.float32]
    stride: NDArray[np.int64]


def locate_points(planned: PlannedView, strides: Sequence[int]) -> PointPlaces:
    """From levels and positions to pixels.

    Args:
        planned: A stored view.
        strides: Of the pyramid levels, px.
    """
    stride = np.asarray(strides, np.int64)[planned.points.level]
    columns = -(-planned.geometry.padded_hw[1] // stride)
    row, column = np.divmod(planned.points.position.astype(np.int64), columns)
    xy = np.stack([column * stride, row * stride], axis=1).astype(np.float32)
    return PointPlaces(xy=xy, stride=stride)
