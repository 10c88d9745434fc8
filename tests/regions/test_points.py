"""The regions by hand; and to the last bit those of the dense form: every anchor with every box."""

from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.regions import points
from pipeline.regions.config import RegionsConfig, Vlr
from pipeline.regions.points import (
    INSIDE_MARGIN_PX,
    TOP_K,
    candidate_pairs,
    find_regions,
    valuable_weights,
    vlr_overlap,
)
from pipeline.views.box_ops import box_intersection, box_iou
from pipeline.views.pyramid import Grid, Pyramid, Size
from pipeline.views.types import NOT_MAIN, KeptPoints

STRIDES = (8, 16, 32, 64, 128)

each_vlr = pytest.mark.parametrize("vlr", ["released", "paper", "inside"])


def dense_regions(grid: Grid, boxes_xyxy: Tensor, regions: RegionsConfig) -> KeptPoints:
    """What ``find_regions`` must return, at a hundred times the cost; golden functions hold the overlaps."""
    anchors = torch.from_numpy(grid.anchors)
    gt_index, weights = torch.full((len(anchors),), NOT_MAIN), torch.zeros(len(anchors))
    if len(boxes_xyxy):
        iou = box_iou(anchors[:, None], boxes_xyxy)
        points, centers = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (anchors, boxes_xyxy))
        candidates = _nearest((points[:, None] - centers).square().sum(-1).sqrt(), grid)
        overlaps = iou.gather(0, candidates)
        thresholds = overlaps.mean(dim=0) + overlaps.std(dim=0)
        positive = torch.zeros_like(iou).scatter_(0, candidates, 1).bool() & (iou >= thresholds)
        inside = _inside(points, boxes_xyxy)
        positive &= inside
        best = torch.where(positive, iou, -torch.inf).argmax(dim=1)
        gt_index = torch.where(positive.any(dim=1), best, NOT_MAIN)
        if regions.vlr != "inside":
            distance = vlr_overlap(anchors[:, None], boxes_xyxy, regions.vlr)
            inside = (distance >= regions.vlr_gamma * thresholds) & (distance < thresholds)
        weights = torch.where(inside, iou, 0.0).amax(dim=1)
    kept = ((gt_index >= 0) | (weights > 0)).nonzero().squeeze(1)
    level, position = grid.unflatten(kept.numpy())
    return KeptPoints(
        level=level,
        position=position,
        main_gt=gt_index[kept].numpy(),
        valuable_weight=weights[kept].numpy(),
    )


def _nearest(distances: Tensor, grid: Grid) -> Tensor:
    """``LongTensor[K, G]``: the ``TOP_K`` nearest positions of every level by distances ``Tensor[N, G]``."""
    nearest = []
    for level, start in zip(distances.split(grid.lengths), grid.starts.tolist(), strict=True):
        nearest.append(level.topk(min(TOP_K, len(level)), dim=0, largest=False).indices + start)
    return torch.cat(nearest)


def _inside(points: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """``BoolTensor[N, G]``: the point lies in the box by more than the margin on all sides."""
    to_upper_left, to_lower_right = points[:, None] - boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - points[:, None]
    return torch.cat([to_upper_left, to_lower_right], dim=-1).amin(dim=-1) > INSIDE_MARGIN_PX


def test_the_two_definitions_by_hand() -> None:
    """The anchor is the upper half of the box.

    Intersection 100, anchor 100, union 200; centers 5 px apart, enclosing diagonal^2 = 10^2 + 20^2:
    ``released`` = 100 / 100 - 25 / 500, ``paper`` = 100 / 200 - 25 / 500.
    """
    anchor, box = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    assert vlr_overlap(anchor, box, "released").item() == pytest.approx(0.95)
    assert vlr_overlap(anchor, box, "paper").item() == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        pytest.param(0.5, 0.0, id="D = t is outside"),
        pytest.param(0.5000001, 0.5, id="D just below t is inside"),
        pytest.param(2.0, 0.5, id="D = t / 4 is inside"),
        pytest.param(2.000001, 0.0, id="D just below t / 4 is outside"),
    ],
)
@pytest.mark.parametrize("vlr", ["released", "paper"])
def test_bounds(threshold: float, expected: float, vlr: Vlr) -> None:
    """Concentric, half of the anchor covered: D = 128 / 256 = 0.5 exactly under either definition."""
    anchor, box = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[4.0, 0.0, 12.0, 16.0]])
    zero = torch.zeros(1, dtype=torch.int64)
    regions = RegionsConfig(vlr=vlr, vlr_gamma=0.25)
    assert valuable_weights(anchor, (zero, zero), box, torch.tensor([threshold]), regions).item() == expected


def assert_equal(
    padded_hw: Size, views: Sequence[Tensor], vlr: Vlr, vlr_gamma: float = 0.25, point_offset: float = 0.0
) -> None:
    """Of the boxes of each view."""
    grid = Pyramid(STRIDES, point_offset).grid(padded_hw)
    regions = RegionsConfig(vlr=vlr, vlr_gamma=vlr_gamma)
    for found, boxes in zip(find_regions(grid, views, regions), views, strict=True):
        for name, values in vars(dense_regions(grid, boxes, regions)).items():
            np.testing.assert_array_equal(getattr(found, name), values, name)


def random_boxes(generator: torch.Generator, count: int, padded_hw: Size) -> Tensor:
    """Sides from a fraction of a pixel to the whole view; some stick out of it."""
    limits = torch.tensor([padded_hw[1], padded_hw[0]])
    centers = (torch.rand(count, 2, generator=generator) * 1.2 - 0.1) * limits
    sides = limits * torch.rand(count, 2, generator=generator) ** 3
    return torch.cat([centers - sides / 2, centers + sides / 2], dim=1)


@each_vlr
@pytest.mark.parametrize("seed", range(8))
def test_random_boxes(seed: int, vlr: Vlr) -> None:
    generator = torch.Generator().manual_seed(seed)
    padded_hw = [(320, 448), (96, 640), (32, 32), (800, 1344)][seed % 4]
    for count in (1, 2, 9, 40):
        assert_equal(padded_hw, [random_boxes(generator, count, padded_hw)], vlr)
    # Where points are the centers of their cells.
    assert_equal((320, 448), [random_boxes(generator, 40, (320, 448))], vlr, point_offset=0.5)


@each_vlr
def test_views_found_together_have_the_points_of_each_alone(vlr: Vlr) -> None:
    generator = torch.Generator().manual_seed(0)
    views = [random_boxes(generator, count, (160, 192)) for count in (3, 0, 1, 40, 1, 0, 7)]
    with patch.object(points, "MAX_POSITIONS", 4 * len(Pyramid(STRIDES, 0.0).grid((160, 192)))):
        assert_equal((160, 192), views, vlr)


@each_vlr
@pytest.mark.parametrize("multiple", [1, 4, 8, 16])
def test_whole_coordinates_make_ties(multiple: int, vlr: Vlr) -> None:
    """Centers on points and half-way between them: many candidates are equally near."""
    generator = torch.Generator().manual_seed(multiple)
    for _ in range(6):
        corners = torch.randint(0, 320 // multiple, (12, 2, 2), generator=generator).float() * multiple
        ordered = corners.sort(dim=1).values.flatten(1)
        assert_equal((320, 320), [ordered.repeat(2, 1)], vlr)


@each_vlr
@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0.0, 0.0, 1333.0, 800.0], id="the whole view"),
        pytest.param([-5000.0, -5000.0, 6000.0, 6000.0], id="far larger than the view"),
        pytest.param([700.0, 400.0, 700.0, 400.0], id="no area"),
        pytest.param([704.0, 400.0, 704.5, 400.5], id="half a pixel"),
        pytest.param([0.0, 0.0, 3.0, 800.0], id="a strip on the left border"),
        pytest.param([1330.0, 0.0, 1333.0, 2.0], id="the upper right corner"),
        pytest.param([1300.0, 790.0, 1400.0, 900.0], id="sticks out below and to the right"),
        pytest.param([2000.0, 2000.0, 2100.0, 2100.0], id="outside"),
        pytest.param([-300.0, -300.0, -200.0, -200.0], id="outside, above"),
        pytest.param([0.0, 400.0, 1333.0, 401.0], id="one pixel high"),
    ],
)
@pytest.mark.parametrize("vlr_gamma", [0.0, 0.25, 1.0])
def test_extreme_boxes(box: list[float], vlr_gamma: float, vlr: Vlr) -> None:
    other = [100.0, 120.0, 180.0, 300.0]
    views = [torch.tensor([box]), torch.tensor([other, box, other])]
    assert_equal((800, 1344), views, vlr, vlr_gamma)


def test_every_overlapping_pair_is_listed_once_and_few_others() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(generator, 30, (320, 448))
    grid = Pyramid(STRIDES, 0.0).grid((320, 448))
    anchors = torch.from_numpy(grid.anchors)
    position, box = candidate_pairs(grid, boxes)
    listed = torch.zeros(len(anchors), len(boxes))
    listed.index_put_((position, box), torch.ones(len(box)), accumulate=True)
    overlapping = box_intersection(anchors[:, None], boxes) > 0
    assert listed.max() == 1
    assert listed[overlapping].all()
    assert len(box) < 1.5 * overlapping.sum()
