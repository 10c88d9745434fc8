"""Main region, valuable region and their targets, in batches of differently padded images.

Integers are equal outside the cells that the set marks ``fragile`` (their decision depends on rounding or
on the order of exact ties); IoUs agree to 1e-6. The option that ignore boxes take effect, off by default in
the reference, does not exist here.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_regions import dense_regions
from golden_data import (
    PYRAMID,
    Arrays,
    boxes_of,
    cases,
    dense_labels,
    dense_valuable_weights,
    image_count,
    labeled_views,
    load,
    size_of,
    targets_of,
)
from torch import Tensor

from pipeline.regions.config import RegionsConfig, Vlr
from pipeline.regions.valuable import find_regions
from pipeline.training.criterion import LossNormalizers, MainPoints

IOU_TOLERANCE = 1e-6
BACKGROUND, INVALID = 80, -2

every_case = pytest.mark.parametrize("path", cases("assign/*.npz"))


@cache
def recorded(path: Path) -> Arrays:
    return load(path)


def is_ignoring(data: Arrays) -> bool:
    """The case was made with the non-default option that ignore boxes take effect."""
    return "ignore_iof_thr" in data and float(data["ignore_iof_thr"]) > 0


def robust(data: Arrays) -> Tensor:
    """``BoolTensor[B, N]``: cells that are compared."""
    fragile = data.get("fragile")
    return torch.ones_like(data["valid"]).bool() if fragile is None else fragile == 0


def assert_equal_at(where: Tensor, found: Tensor, expected: Tensor) -> None:
    assert torch.equal(found[where], expected[where]), f"{(found != expected)[where].sum()} cells differ"


@every_case
def test_grid(path: Path) -> None:
    data = recorded(path)
    grid = PYRAMID.grid(size_of(data["batch_hw"]))
    assert grid.sizes == tuple(tuple(size) for size in data["feat_hw"].tolist())
    if "num_level_anchors" in data:
        assert grid.lengths == data["num_level_anchors"].tolist()


@every_case
@pytest.mark.parametrize("vlr", ["released", "paper"])
def test_what_the_pipeline_computes_is_the_dense_form_to_the_last_bit(path: Path, vlr: Vlr) -> None:
    data = recorded(path)
    for image in range(image_count(data)):
        grid, boxes = PYRAMID.grid(size_of(data["pad_hw"][image])), boxes_of(data, image)
        regions = RegionsConfig(vlr=vlr)
        (found,), expected = find_regions(grid, [boxes], regions), dense_regions(grid, boxes, regions)
        assert vars(found).keys() == vars(expected).keys()
        for name, values in vars(expected).items():
            np.testing.assert_array_equal(getattr(found, name), values, name)


@every_case
def test_targets_of_a_batch(path: Path) -> None:
    """What is found view by view, kept as points and placed in the batch is what the reference computes."""
    data = recorded(path)
    targets = targets_of(data)
    assert torch.equal(targets.valid, data["valid"].bool())
    if is_ignoring(data):
        return
    where = robust(data)
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
    counted = LossNormalizers.from_batch(targets, main_points_of(len(targets.labels)))
    assert abs(counted.positives - data["num_total_pos"]) <= (~where).sum()
    assert counted.images == image_count(data)


def main_points_of(points: int) -> MainPoints:
    return MainPoints(
        edge_logits=torch.zeros(points, 4, 17), cls_logits=torch.zeros(points, 1), score=torch.zeros(points)
    )
