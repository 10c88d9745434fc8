"""Where the points of a stored view lie, without torch: the points of a grid that are kept."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView


@dataclass(frozen=True, kw_only=True, eq=False)
class PointPlaces:
    """The points of one view in its pixels.

    Attributes:
        xy: (P, 2) float32, px of the view, see ``views.pyramid``.
        stride: (P,) int64, px.
    """

    xy: NDArray[np.float32]
    stride: NDArray[np.int64]


def locate_points(view: LabeledView, pyramid: Pyramid) -> PointPlaces:
    """From levels and positions to pixels, without the points that are not kept."""
    level, position = view.points.level, view.points.position.astype(np.int64)
    widths = np.asarray([width for _, width in pyramid.grid(view.geometry.padded_hw).sizes])
    stride = np.asarray(pyramid.strides, np.int64)[level]
    row, column = np.divmod(position, widths[level])
    cells = np.stack([column, row], axis=1) + pyramid.point_offset
    return PointPlaces(xy=(cells * stride[:, None]).astype(np.float32), stride=stride)
