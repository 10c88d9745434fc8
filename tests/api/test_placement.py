"""Targets in the grid of any batch; the oracle places them one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from store_cases import QUANTIZED
from store_view_cases import BINS, CROWDED, EMPTY, FEW, HIGH, WIDE, write_store_to_show
from torch import Tensor

from pipeline import open_store, place_targets
from pipeline.codec.precision import Precision
from pipeline.store.reader.reader import TargetStore

STRIDES = (8, 16)


def addresses(batch: int, sizes: list[tuple[int, int]]) -> Tensor:
    """``Tensor[B, N, 4]``: image, level, row and column of every cell, as a network gives them."""
    cells = [
        torch.cartesian_prod(torch.tensor([level]), torch.arange(rows), torch.arange(columns))
        for level, (rows, columns) in enumerate(sizes)
    ]
    grid = torch.cat(cells)
    images = torch.arange(batch)[:, None, None].expand(-1, len(grid), 1)
    return torch.cat([images, grid.expand(batch, -1, -1)], dim=2)


@pytest.fixture(params=[None, QUANTIZED], ids=["lossless", "quantized"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TargetStore:
    write_store_to_show(tmp_path, STRIDES, *([request.param] if request.param else []))
    return open_store(tmp_path / "targets.zarr")


@pytest.mark.parametrize("batch_hw", [(128, 320), (136, 501)])
def test_every_point_is_in_its_cell(store: TargetStore, batch_hw: tuple[int, int]) -> None:
    views = [store[image, 0] for image in (CROWDED, EMPTY, WIDE, FEW)]
    targets = place_targets(views, batch_hw)
    sizes = [(-(-batch_hw[0] // s), -(-batch_hw[1] // s)) for s in STRIDES]
    got = addresses(4, sizes)[targets.image, targets.index].tolist()
    expected, rows = [], []
    for image, view in enumerate(views):
        for point, (x, y) in enumerate(view.points_xy.tolist()):
            stride = STRIDES[view.level[point]]
            expected.append([image, int(view.level[point]), int(y / stride), int(x / stride)])
            rows.append((view.main[point], view.edge_logits[point]))
    assert got == expected
    assert targets.main.tolist() == [place for place, (main, _) in enumerate(rows) if main >= 0]
    edges = targets.edge_logits()
    assert edges.shape == (len(rows), 4, BINS)
    np.testing.assert_allclose(edges, np.array([logits for _, logits in rows]), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(
        targets.cls_logits(), np.concatenate([v.cls_logits for v in views]), rtol=1e-6, atol=1e-6
    )
    boxes = [view.boxes[view.main[view.main >= 0]] for view in views]
    np.testing.assert_array_equal(targets.boxes_xyxy, np.concatenate(boxes))


@pytest.mark.parametrize("image", [WIDE, HIGH])
def test_a_batch_without_the_views_padding_has_no_points_in_it(store: TargetStore, image: int) -> None:
    view = store[image, 0]  # of 40 x 300 px, padded to 64 x 320, or the other way
    height, width = view.geometry.resized_hw
    targets = place_targets([view], (height, width))
    fits = (view.points_xy < (width, height)).all(axis=1)
    assert 0 < fits.sum() < len(fits)
    sizes = [(-(-height // stride), -(-width // stride)) for stride in STRIDES]
    got = addresses(1, sizes)[0][targets.index]
    strides = torch.tensor(STRIDES)[got[:, 1]]
    np.testing.assert_array_equal(
        torch.stack([got[:, 3], got[:, 2]], 1) * strides[:, None], view.points_xy[fits]
    )
    np.testing.assert_allclose(targets.edge_logits(), view.edge_logits[fits], rtol=1e-5, atol=1e-3)
    assert len(targets.main) == len(view.cls_logits)


@pytest.mark.parametrize("key", [1, (1.5, 0), ("1", 0), (1, 0, 0)])
def test_a_key_that_is_none_is_refused(store: TargetStore, key: object) -> None:
    with pytest.raises(TypeError, match=r"expected the integers \(image_id, view\), but got"):
        store[key]  # type: ignore[index]


def test_what_cannot_be_placed_is_refused(store: TargetStore, tmp_path: Path) -> None:
    """Of views of two stores the steps and strides of the first would be taken for all."""
    with pytest.raises(ValueError, match=r"image_id=2: expected a batch of at least the view's \(120, 160\)"):
        place_targets([store[CROWDED, 0]], (120, 152))
    with pytest.raises(ValueError, match="but got none"):
        place_targets([], (96, 96))
    finer = Precision(edge_step=0.1, max_step_factor=4.0, cls_step=0.025)
    for name, others in (("strides", ((16, 32), QUANTIZED)), ("precision", (STRIDES, finer))):
        other = write_store_to_show(tmp_path / name, *others)
        with pytest.raises(ValueError, match="expected views of one store"):
            place_targets([store[FEW, 0], other[FEW, 0]], (96, 96))
