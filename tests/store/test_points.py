"""Places of stored points: those of the detector's own grid."""

import numpy as np
import pytest
from store_cases import make_view

from pipeline.store.tools.points import locate_points
from pipeline.views.geometry import ViewGeometry
from pipeline.views.pyramid import level_sizes, pyramid_points
from pipeline.views.types import KeptPoints, LabeledView, ViewKey

STRIDES = (8, 16, 32)


@pytest.mark.parametrize("cell_offset", [0.0, 0.5])
@pytest.mark.parametrize("padded_hw", [(96, 128), (32, 32), (800, 1344)])
def test_every_position_lies_where_the_grid_has_it(padded_hw: tuple[int, int], cell_offset: float) -> None:
    sizes = level_sizes(padded_hw, STRIDES)
    xy, strides = pyramid_points(sizes, STRIDES, cell_offset=cell_offset)
    lengths = [height * width for height, width in sizes]
    every = KeptPoints(
        level=np.repeat(np.arange(3), lengths),
        position=np.concatenate([np.arange(length) for length in lengths]),
        main_gt=np.full(sum(lengths), -1),
        valuable_weight=np.ones(sum(lengths), np.float32),
    )
    geometry = ViewGeometry(original_hw=(1, 1), resized_hw=padded_hw, padded_hw=padded_hw, flip=False)
    view = LabeledView(
        key=ViewKey(1, 0),
        geometry=geometry,
        boxes_xyxy=np.empty((0, 4), np.float32),
        labels=np.empty(0, np.int64),
        points=every,
    )
    places = locate_points(view, STRIDES, cell_offset)
    np.testing.assert_array_equal(places.xy, xy.numpy())
    np.testing.assert_array_equal(places.stride, strides.numpy())


def test_a_view_without_points_has_no_places() -> None:
    places = locate_points(make_view(ViewKey(1, 0), points=0, boxes=0), STRIDES)
    assert (places.xy.shape, places.stride.shape) == ((0, 2), (0,))
