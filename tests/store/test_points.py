"""Places of stored points, by hand."""

import pytest
from store_cases import make_view

from pipeline.store.tools.points import locate_points
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import ViewKey


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_a_stored_point_lies_at_its_cell_of_the_views_padded_size(offset: float) -> None:
    view = make_view(ViewKey(1, 0), points=9, boxes=2)
    strides = (8, 16, 32, 64)
    places = locate_points(view, Pyramid(strides, offset))
    width = view.geometry.padded_hw[1]
    for xy, stride, level, position in zip(
        places.xy, places.stride, view.points.level, view.points.position, strict=True
    ):
        row, column = divmod(int(position), -(-width // strides[level]))
        assert stride == strides[level]
        assert xy.tolist() == [(column + offset) * stride, (row + offset) * stride]


def test_a_view_without_points_has_no_places() -> None:
    places = locate_points(make_view(ViewKey(1, 0), points=0, boxes=0), Pyramid((8, 16), 0.0))
    assert (places.xy.shape, places.stride.shape) == ((0, 2), (0,))
