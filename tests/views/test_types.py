import numpy as np
import pytest

from pipeline.views.geometry import ViewGeometry
from pipeline.views.types import KeptPoints, LabeledView, SoftTargets, ViewKey


def points(level: list[int], position: list[int], main_gt: list[int]) -> KeptPoints:
    return KeptPoints(
        level=np.array(level, int),
        position=np.array(position, int),
        main_gt=np.array(main_gt, int),
        valuable_weight=np.zeros(len(level), np.float32),
    )


@pytest.mark.parametrize(("level", "position"), [([1, 0], [0, 1]), ([0, 0], [5, 4]), ([0, 0], [4, 4])])
def test_points_out_of_order_or_twice_are_refused(level: list[int], position: list[int]) -> None:
    with pytest.raises(AssertionError, match="ascend"):
        points(level, position, [0, 0])


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(AssertionError, match="expected"):
        points([0, 1], [0, 1], [0])
    boxes, labels = np.zeros((1, 4), np.float32), np.zeros(1, np.int64)
    with pytest.raises(AssertionError, match="1 boxes"):
        LabeledView(
            key=ViewKey(1, 0),
            geometry=ViewGeometry(original_hw=(4, 4), resized_hw=(8, 8), padded_hw=(32, 32), flip=False),
            boxes_xyxy=boxes,
            labels=labels,
            points=points([0], [0], [1]),
        )
    with pytest.raises(AssertionError, match="4, bins"):
        SoftTargets(edge_logits=np.zeros((1, 3, 5), np.float32), cls_logits=np.zeros((0, 2), np.float32))
