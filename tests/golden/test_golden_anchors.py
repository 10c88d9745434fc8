"""Grids, anchors and valid cells: exactly the reference's."""

import pytest
import torch
from golden_data import FOLDER, STRIDES, load, size_of

from pipeline.views.pyramid import level_lengths, level_sizes, pyramid_points, square_anchors, valid_cells

DATA = load(FOLDER / "anchors.npz")
CASES = range(int(DATA["n_cases"]))


def recorded_levels(case: int, name: str) -> list[torch.Tensor]:
    return [DATA[f"case{case}_{name}{level}"] for level in range(len(STRIDES))]


def sizes_of(case: int) -> list[tuple[int, int]]:
    return level_sizes(size_of(DATA[f"case{case}_image_hw"]), STRIDES)


def test_there_are_cases() -> None:
    assert len(CASES) > 0


@pytest.mark.parametrize("case", CASES)
def test_level_sizes(case: int) -> None:
    assert sizes_of(case) == [tuple(row) for row in DATA[f"case{case}_feat_hw"].tolist()]


@pytest.mark.parametrize("case", CASES)
def test_anchors(case: int) -> None:
    anchors = square_anchors(*pyramid_points(sizes_of(case), STRIDES))
    split = anchors.split(level_lengths(sizes_of(case)))
    for level, expected in enumerate(recorded_levels(case, "level")):
        assert torch.equal(split[level], expected), f"level {level}"


@pytest.mark.parametrize("case", CASES)
def test_valid_cells(case: int) -> None:
    expected = torch.cat(recorded_levels(case, "valid"), dim=1).bool()
    for row, padded_hw in enumerate(DATA[f"case{case}_pad_hw"]):
        assert torch.equal(valid_cells(sizes_of(case), STRIDES, size_of(padded_hw)), expected[row])
