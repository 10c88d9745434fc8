"""Views of several sizes in one batch: the teacher at every position lies where the student predicts it."""

import numpy as np
import pytest
import torch

from pipeline.store.reader.stored import StoredDense
from pipeline.student.targets import dense_teacher
from pipeline.views.pyramid import Pyramid

PYRAMID, BATCH_HW = Pyramid((8, 16), 0), (64, 96)
SIZES = [(64, 96), (32, 96), (64, 32), (40, 24)]


@pytest.mark.parametrize("lossless", [False, True])
def test_each_position_is_found_by_its_point(*, lossless: bool) -> None:
    """Codes of a view tell its point: (x, y) of the position, in cells of 8 px, and its stride."""
    parts, grid = [], PYRAMID.grid(BATCH_HW)
    for size in SIZES:
        own = PYRAMID.grid(size)
        told = np.column_stack([own.points / 8, own.point_strides])
        boxes = np.repeat(own.points[:, :1], 4, axis=1)
        parts.append(
            StoredDense(
                classes=told.astype(np.float32 if lossless else np.uint8),
                distances=boxes.astype(np.float32 if lossless else np.uint16),
                scores=None if lossless else np.linspace(0, 1, 200, dtype=np.float32),
            )
        )
    batch = dense_teacher(parts, SIZES, grid)
    for place, size in enumerate(SIZES):
        valid = grid.valid(size)
        expected = np.column_stack([grid.points / 8, grid.point_strides])[valid]
        assert np.array_equal(batch.classes[place][torch.from_numpy(valid)].numpy(), expected)
        assert np.array_equal(batch.distances[place, :, 2].numpy()[valid], grid.points[valid, 0])
        assert not batch.classes[place].numpy()[~valid].any()
    assert batch.unit == (1 if lossless else 1 / 32)
