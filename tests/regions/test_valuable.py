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


def test_the_two_definitions_by_hand() -> None:
    """The anchor is the upper half of the box.

    Intersection 100, anchor 100, union 200; centers 5 px apart, enclosing diagonal^2 = 10^2 + 20^2:
    ``released`` = 100 / 100 - 25 / 500, ``paper`` = 100 / 200 - 25 / 500.
    """
    box = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    assert vlr_overlap(ANCHOR, box, "released").item() == pytest.approx(0.95)
    assert vlr_overlap(ANCHOR, box, "paper").item() == pytest.approx(0.45)


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
