"""Main region, valuable region and their targets, in batches of differently padded images.

Integers are equal outside the cells that the set marks ``fragile`` (their decision depends on rounding or
on the order of exact ties); IoUs agree to 1e-6. The option that ignore boxes take effect, off by default in
the reference, does not exist here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import (
    cases,
    dense_labels,
    dense_valuable_weights,
    image_count,
    labeled_views,
    load,
    targets_of,
)
from torch import Tensor

from pipeline.training.criterion import LossNormalizers, MainPoints

IOU_TOLERANCE = 1e-6
BACKGROUND, INVALID = 80, -2


def assert_equal_at(where: Tensor, found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found[where], expected[where]), f"{(found != expected)[where].sum()} cells differ"


@pytest.mark.parametrize("path", cases("assign/*.npz"))
def test_targets_of_a_batch(path: Path) -> None:
    """What is found view by view, kept as points and placed in the batch is what the reference computes."""
    data = load(path)
    targets = targets_of(data)
    assert torch.equal(targets.valid, data["valid"].bool())
    if data.get("ignore_iof_thr", torch.zeros(())) > 0:
        return
    where = data.get("fragile", torch.zeros_like(data["valid"])) == 0
    assigned = torch.where(targets.valid, 0, INVALID)
    main_gt = np.concatenate([view.points.main_gt for view in labeled_views(data)])
    at_main = targets.image[targets.main], targets.index[targets.main]
    assigned[at_main] = torch.from_numpy(main_gt)[targets.main] + 1
    assert_equal_at(where, assigned, data["assigned_gt"])
    assert_equal_at(where, dense_labels(targets, BACKGROUND), data["labels"])
    boxes = torch.zeros_like(data["bbox_targets"])
    boxes[at_main] = targets.boxes_xyxy
    assert_equal_at(where, boxes, data["bbox_targets"])
    # The reference crashes for images without boxes, so nothing is recorded for them (note N1).
    expected, weights = data.get("vlr", torch.zeros(targets.valid.shape)), dense_valuable_weights(targets)
    assert_equal_at(where, weights > 0, expected > 0)
    torch.testing.assert_close(weights[where], expected[where], rtol=0, atol=IOU_TOLERANCE)
    main, zeros = len(targets.labels), torch.zeros
    points = MainPoints(edge_logits=zeros(main, 4, 17), cls_logits=zeros(main, 1), score=zeros(main))
    counted = LossNormalizers.from_batch(targets, points)
    assert abs(counted.positives - data["num_total_pos"]) <= (~where).sum()
    assert counted.images == image_count(data)
