import math
from collections.abc import Sequence

import pytest
import torch

from pipeline.regions.atss import NEGATIVE, TOP_K, Assignment, assign_atss, nearest_candidates
from pipeline.views.pyramid import Pyramid

BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [[100.0, 0.0, 110.0, 10.0], [200.0, 0.0, 210.0, 10.0]]
"""Anchors that overlap no box of these tests."""


def boxes(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)


def assign(anchors: torch.Tensor, lengths: Sequence[int], truth: torch.Tensor) -> Assignment:
    """With candidates found by sorting, on anchors that need not lie on a grid."""
    centers = (anchors[:, None, :2] + anchors[:, None, 2:] - truth[:, :2] - truth[:, 2:]) / 2
    order = [level.sort(dim=0).indices[:TOP_K] for level in centers.norm(dim=-1).split(list(lengths))]
    starts = [sum(lengths[:level]) for level in range(len(lengths))]
    candidates = torch.cat([nearest + start for nearest, start in zip(order, starts, strict=True)])
    return assign_atss(anchors, candidates, truth, [len(truth)])


def test_threshold_is_mean_plus_unbiased_deviation() -> None:
    """IoUs 1, 0, 0: mean 1/3, variance ((2/3)^2 + 2 (1/3)^2) / (3 - 1) = 1/3."""
    found = assign(boxes(BOX, *FAR), [3], boxes(BOX))
    assert found.thresholds.item() == pytest.approx(1 / 3 + math.sqrt(1 / 3))
    assert found.gt_index.tolist() == [0, NEGATIVE, NEGATIVE]


def test_a_good_overlap_below_the_threshold_is_negative() -> None:
    """IoUs 1 and 1/3: mean 2/3, deviation (2/3) / sqrt(2), so the threshold is 1.14 and nothing passes."""
    found = assign(boxes(BOX, [5.0, 0.0, 15.0, 10.0]), [2], boxes(BOX))
    assert found.thresholds.item() == pytest.approx(2 / 3 + math.sqrt(2) / 3)
    assert found.gt_index.tolist() == [NEGATIVE, NEGATIVE]


@pytest.mark.parametrize(("inside", "expected"), [(0.02, 0), (0.005, NEGATIVE)])
def test_the_point_must_be_inside_by_more_than_the_margin(inside: float, expected: int) -> None:
    """An anchor centered ``inside`` px behind the left edge: IoU 0.33 over a threshold of 0.30."""
    anchor = [inside - 5, 0.0, inside + 5, 10.0]
    found = assign(boxes(anchor, *FAR), [3], boxes(BOX))
    assert found.gt_index[0] == expected


@pytest.mark.parametrize("exact_first", [True, False])
def test_a_cell_goes_to_the_box_with_the_larger_overlap(*, exact_first: bool) -> None:
    """IoUs 1 and 100 / 120, each over its own threshold (0.91 and 0.76)."""
    taller = [0.0, 0.0, 10.0, 12.0]
    order = (BOX, taller) if exact_first else (taller, BOX)
    found = assign(boxes(BOX, *FAR), [3], boxes(*order))
    assert found.gt_index[0] == (0 if exact_first else 1)


@pytest.mark.parametrize(("lengths", "expected"), [([TOP_K + 1], NEGATIVE), ([TOP_K, 1], 0)])
def test_candidates_are_the_nine_nearest_of_each_level(lengths: list[int], expected: int) -> None:
    """Nine small anchors sit nearer to the center than one that overlaps well (IoU 0.81)."""
    small = [[49.0 + step, 49.0, 51.0 + step, 51.0] for step in range(-4, 5)]
    anchors = boxes(*small, [10.0, 10.0, 100.0, 100.0])
    found = assign(anchors, lengths, boxes([0.0, 0.0, 100.0, 100.0]))
    assert found.gt_index[-1] == expected
    assert (found.gt_index[:-1] == NEGATIVE).all() or expected == NEGATIVE


def test_without_boxes_everything_is_negative() -> None:
    found = assign(boxes(BOX, *FAR), [3], torch.zeros(0, 4))
    assert found.gt_index.tolist() == [NEGATIVE] * 3
    assert found.thresholds.shape == (0,)


def test_a_box_without_area_gets_no_positive() -> None:
    found = assign(boxes(BOX, *FAR), [3], boxes([5.0, 5.0, 5.0, 5.0]))
    assert found.gt_index.tolist() == [NEGATIVE] * 3


def test_candidates_of_a_grid_are_the_nearest_points() -> None:
    grid = Pyramid((8, 16, 32), 0.0).grid_of(((5, 7), (3, 4), (1, 2)))
    truth = boxes([3.1, 5.3, 29.7, 24.1])
    distances = (torch.from_numpy(grid.points) - torch.tensor([16.4, 14.7])).norm(dim=1).split([35, 12, 2])
    expected = [sorted(range(len(level)), key=level.tolist().__getitem__)[:TOP_K] for level in distances]
    flat = [place + start for start, level in zip((0, 35, 47), expected, strict=True) for place in level]
    assert nearest_candidates(grid, truth).squeeze(1).tolist() == flat
