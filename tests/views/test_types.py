import numpy as np
import pytest

from pipeline.views.types import KeptPoints


@pytest.mark.parametrize(("level", "position"), [([1, 0], [0, 1]), ([0, 0], [5, 4]), ([0, 0], [4, 4])])
def test_points_out_of_order_or_twice_are_refused(level: list[int], position: list[int]) -> None:
    columns = {"main_gt": np.zeros(2, int), "valuable_weight": np.zeros(2, np.float32)}
    with pytest.raises(AssertionError, match="ascend"):
        KeptPoints(level=np.array(level), position=np.array(position), **columns)
