"""Grids, anchors and valid cells: exactly the reference's."""

import pytest
import torch
from golden_data import FOLDER, PYRAMID, STRIDES, load, size_of

DATA = load(FOLDER / "anchors.npz")
CASES = range(int(DATA["n_cases"]))
assert CASES


@pytest.mark.parametrize("case", CASES)
def test_grid(case: int) -> None:
    grid = PYRAMID.grid(size_of(DATA[f"case{case}_image_hw"]))
    anchors, valid = (
        [DATA[f"case{case}_{name}{level}"] for level in range(len(STRIDES))] for name in ("level", "valid")
    )
    assert grid.sizes == tuple(map(tuple, DATA[f"case{case}_feat_hw"].tolist()))
    assert grid.lengths == list(map(len, anchors))
    assert torch.equal(torch.from_numpy(grid.anchors), torch.cat(anchors))
    for padded_hw, expected in zip(DATA[f"case{case}_pad_hw"], torch.cat(valid, dim=1).bool(), strict=True):
        assert torch.equal(torch.from_numpy(grid.valid(size_of(padded_hw))), expected)
