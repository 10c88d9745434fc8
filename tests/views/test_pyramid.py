"""The grid by hand: where points lie, and how positions are counted."""

import numpy as np
import pytest

from pipeline.views.pyramid import Pyramid


def test_points_lie_in_the_corners_or_in_the_middle_of_their_cells() -> None:
    assert Pyramid((8,), 0.0).grid((16, 16)).points.tolist() == [[0, 0], [8, 0], [0, 8], [8, 8]]
    assert Pyramid((8,), 0.5).grid((16, 16)).points.tolist() == [[4, 4], [12, 4], [4, 12], [12, 12]]


def test_a_flat_number_counts_through_the_levels_row_after_row() -> None:
    """12 x 17 px: 2 x 3 cells of 8 px, then 1 x 2 of 16 px."""
    grid = Pyramid((8, 16), 0.0).grid((12, 17))
    assert (grid.sizes, len(grid), grid.starts.tolist()) == (((2, 3), (1, 2)), 8, [0, 6])
    level, position = grid.unflatten(np.arange(8))
    assert level.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert position.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert grid.flatten(level, position).tolist() == list(range(8))
    assert grid.points[[2, 3, 7]].tolist() == [[16, 0], [0, 8], [16, 0]]
    assert grid.point_strides.tolist() == [8] * 6 + [16] * 2


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_in_a_wider_grid_a_cell_keeps_its_point_and_is_valid(offset: float) -> None:
    pyramid = Pyramid((8, 16, 32), offset)
    grid, wider = pyramid.grid((64, 96)), pyramid.grid((96, 160))
    flat = grid.flatten_into(wider, *grid.unflatten(np.arange(len(grid))))
    np.testing.assert_array_equal(wider.points[flat], grid.points)
    assert np.flatnonzero(wider.valid((64, 96))).tolist() == flat.tolist()
