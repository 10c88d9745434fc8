"""Grids, anchors and valid cells: exactly the reference's."""

import pytest
import torch
from golden_data import FOLDER, PYRAMID, STRIDES, load, size_of

from pipeline.views.pyramid import Grid

DATA = load(FOLDER / "anchors.npz")
CASES = range(int(DATA["n_cases"]))


def recorded_levels(case: int, name: str) -> list[torch.Tensor]:
    return [DATA[f"case{case}_{name}{level}"] for level in range(len(STRIDES))]


def grid_of(case: int) -> Grid:
    return PYRAMID.grid(size_of(DATA[f"case{case}_image_hw"]))


def test_there_are_cases() -> None:
    assert len(CASES) > 0


@pytest.mark.parametrize("case", CASES)
def test_level_sizes(case: int) -> None:
    assert grid_of(case).sizes == tuple(tuple(row) for row in DATA[f"case{case}_feat_hw"].tolist())


@pytest.mark.parametrize("case", CASES)
def test_anchors(case: int) -> None:
    split = torch.from_numpy(grid_of(case).anchors).split(grid_of(case).lengths)
    for level, expected in enumerate(recorded_levels(case, "level")):
        assert torch.equal(split[level], expected), f"level {level}"


@pytest.mark.parametrize("case", CASES)
def test_valid_cells(case: int) -> None:
    expected = torch.cat(recorded_levels(case, "valid"), dim=1).bool()
    for row, padded_hw in enumerate(DATA[f"case{case}_pad_hw"]):
        valid = torch.from_numpy(grid_of(case).valid(size_of(padded_hw)))
        assert torch.equal(valid, expected[row])
