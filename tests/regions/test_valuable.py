import pytest
import torch

from pipeline.regions.candidate_pairs import CandidatePairs
from pipeline.regions.config import RegionsConfig, Vlr
from pipeline.regions.valuable import find_regions, valuable_weights, vlr_overlap
from pipeline.views.pyramid import Pyramid

PYRAMID = Pyramid((8, 16), 0.0)
ANCHOR = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def weight(
    anchor: torch.Tensor, boxes: torch.Tensor, thresholds: torch.Tensor, vlr: Vlr, vlr_gamma: float = 0.25
) -> float:
    """Of one anchor, paired with all boxes."""
    pairs = CandidatePairs(position=torch.zeros(len(boxes), dtype=torch.int64), box=torch.arange(len(boxes)))
    regions = RegionsConfig(vlr=vlr, vlr_gamma=vlr_gamma)
    return valuable_weights(anchor, pairs, boxes, thresholds, regions).item()


def weight_of(box: list[float], threshold: float, vlr: Vlr) -> float:
    return weight(ANCHOR, torch.tensor([box]), torch.tensor([threshold]), vlr)


def test_the_two_definitions_by_hand() -> None:
    """The anchor is the upper half of the box.

    Intersection 100, anchor 100, union 200; centers 5 px apart, enclosing diagonal^2 = 10^2 + 20^2:
    ``released`` = 100 / 100 - 25 / 500, ``paper`` = 100 / 200 - 25 / 500.
    """
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    assert vlr_overlap(ANCHOR, box, "released").item() == pytest.approx(0.95)
    assert vlr_overlap(ANCHOR, box, "paper").item() == pytest.approx(0.45)


@pytest.mark.parametrize(
    ("threshold", "released", "paper"),
    [
        pytest.param(0.4, 0.0, 0.0, id="both above"),
        pytest.param(0.5, 0.0, 0.5, id="0.125 <= 0.45 < 0.5 <= 0.95"),
        pytest.param(1.0, 0.5, 0.5, id="0.25 <= 0.45 < 0.95 < 1"),
        pytest.param(2.0, 0.5, 0.0, id="0.45 < 0.5 <= 0.95 < 2"),
        pytest.param(4.0, 0.0, 0.0, id="both below"),
    ],
)
def test_region_of_the_upper_half_of_a_box(threshold: float, released: float, paper: float) -> None:
    """Inside, the weight is the true IoU (0.5) under either definition."""
    box = [0.0, 0.0, 10.0, 20.0]
    assert weight_of(box, threshold, "released") == pytest.approx(released)
    assert weight_of(box, threshold, "paper") == pytest.approx(paper)


def test_a_small_anchor_deep_in_a_large_box_is_valuable_only_as_released() -> None:
    """``released`` = 1 - 4050 / 20000 = 0.7975; ``paper`` = 0.01 - 0.2025 < 0; IoU = 100 / 10000."""
    box = [0.0, 0.0, 100.0, 100.0]
    assert weight_of(box, 0.8, "released") == pytest.approx(0.01)
    assert weight_of(box, 0.8, "paper") == 0


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
    assert weight(anchor, box, torch.tensor([threshold]), vlr) == expected


def test_weight_is_the_largest_iou_over_the_boxes_whose_region_holds_the_cell() -> None:
    """IoUs 1, 0.5 and 0.25 at D = 1, 0.45 and 0.25 - 9 / 68; only the first box's region ends below its D."""
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 20.0], [0.0, 0.0, 10.0, 40.0]])
    thresholds = torch.tensor([0.9, 0.9, 0.3])
    assert weight(ANCHOR, boxes, thresholds, "paper") == pytest.approx(0.5)
    assert weight(ANCHOR, boxes[[0, 2]], thresholds[[0, 2]], "paper") == pytest.approx(0.25)


def test_vlr_gamma_moves_the_start() -> None:
    anchor, box = torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([[4.0, 0.0, 12.0, 16.0]])
    threshold = torch.tensor([0.8])
    assert weight(anchor, box, threshold, "paper", 0.625) == 0.5
    assert weight(anchor, box, threshold, "paper", 0.63) == 0


@pytest.mark.parametrize("vlr", ["released", "paper"])
def test_kept_points_are_both_regions_in_ascending_order(vlr: Vlr) -> None:
    boxes = torch.tensor([[10.0, 12.0, 70.0, 80.0], [40.0, 30.0, 60.0, 52.0]])
    (found,) = find_regions(PYRAMID.grid((96, 128)), [boxes], RegionsConfig(vlr=vlr))
    order = list(zip(found.level.tolist(), found.position.tolist(), strict=True))
    assert order == sorted(set(order))
    assert ((found.main_gt >= 0) | (found.valuable_weight > 0)).all()
    assert set(found.level.tolist()) == {0, 1}


def test_the_definitions_keep_different_levels_of_the_same_image() -> None:
    """A box of 240 px: the 64 px anchors of stride 8 have an IoU of at most 64^2 / 240^2 = 0.071.

    The nine candidates of stride 16 have 128^2 / 240^2 = 0.284, so the threshold is 0.18 + 0.11 and the
    region starts at 0.072. Over the anchor's own area, anchors that the box's border cuts reach that.
    """
    boxes = torch.tensor([[8.0, 8.0, 248.0, 248.0]])
    (released,) = find_regions(PYRAMID.grid((256, 256)), [boxes], RegionsConfig(vlr="released"))
    (paper,) = find_regions(PYRAMID.grid((256, 256)), [boxes], RegionsConfig(vlr="paper"))
    assert set(released.level.tolist()) == {0, 1}
    assert set(paper.level.tolist()) == {1}


def test_without_boxes_no_point_is_kept() -> None:
    (found,) = find_regions(PYRAMID.grid((96, 128)), [torch.zeros(0, 4)], RegionsConfig())
    assert [len(values) for values in (found.level, found.position, found.main_gt)] == [0, 0, 0]


def test_inside_keeps_every_point_in_a_box_and_no_other() -> None:
    boxes = [[3.0, 2.0, 61.0, 40.5], [16.0, 16.0, 17.0, 90.0], [70.0, 70.0, 71.0, 71.0]]
    grid = PYRAMID.grid((96, 96))
    (kept,) = find_regions(grid, [torch.tensor(boxes)], RegionsConfig(vlr="inside"))
    expected = {
        (level, row * cells + column)
        for level, (stride, cells) in enumerate(((8, 12), (16, 6)))
        for row in range(cells)
        for column in range(cells)
        if any(
            min(column * stride - x1, row * stride - y1, x2 - column * stride, y2 - row * stride) > 0.01
            for x1, y1, x2, y2 in boxes
        )
    }
    assert set(zip(kept.level.tolist(), kept.position.tolist(), strict=True)) == expected
    assert (kept.valuable_weight > 0).all()
    assert kept.main_count > 0


def test_the_weight_inside_is_the_largest_iou_of_the_boxes_around_the_point() -> None:
    """The anchor of (8, 8) on stride 8 is 64 px wide; IoUs 1600 / 4096 and 1600 / (4096 + 10000 - 1600)."""
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0], [0.0, 0.0, 100.0, 100.0]])
    (kept,) = find_regions(PYRAMID.grid((96, 96)), [boxes[:1]], RegionsConfig(vlr="inside"))
    place = kept.position.tolist().index(13)
    assert kept.valuable_weight[place] == pytest.approx(1600 / 4096)
    (both,) = find_regions(PYRAMID.grid((96, 96)), [boxes], RegionsConfig(vlr="inside"))
    assert both.valuable_weight[both.position.tolist().index(13)] == pytest.approx(1600 / 4096)
