"""The grid by hand: where points lie, and what follows for the regions."""

import torch

from pipeline.regions.valuable import find_regions
from pipeline.views.pyramid import level_points


def test_points_lie_in_the_corners_or_in_the_middle_of_their_cells() -> None:
    assert level_points((2, 2), 8).tolist() == [[0, 0], [8, 0], [0, 8], [8, 8]]
    assert level_points((2, 2), 8, cell_offset=0.5).tolist() == [[4, 4], [12, 4], [4, 12], [12, 12]]


def test_regions_of_one_level_move_with_its_points() -> None:
    """Half a cell further, points see a box that is half a cell further as they saw it before."""
    box = torch.tensor([[20.0, 28.0, 70.0, 66.0]])
    corners = find_regions((128, 128), (8,), box, "diou")
    middles = find_regions((128, 128), (8,), box + 4, "diou", cell_offset=0.5)
    assert len(corners.position) > 20
    torch.testing.assert_close(corners.position, middles.position, rtol=0, atol=0)
    torch.testing.assert_close(corners.main_gt, middles.main_gt, rtol=0, atol=0)
    torch.testing.assert_close(corners.valuable_weight, middles.valuable_weight)
