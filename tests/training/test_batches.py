"""Batches: a point keeps its place in the image, whatever the batch is padded to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batch_cases import PYRAMID, three_views
from teacher_cases import LOSSLESS, QUANTIZED
from training_cases import store_of

from pipeline.codec.precision import Precision
from pipeline.store.reader.stored import StoredDense, StoredView
from pipeline.student.targets import dense_teacher, stored_teacher_batch
from pipeline.training.batches import batch_labels


def test_a_wider_batch_is_its_views_one_after_another_at_their_coordinates() -> None:
    views = three_views()
    together = batch_labels(views, (96, 96), PYRAMID)
    alone = [batch_labels([view], view.geometry.padded_hw, PYRAMID) for view in views]
    for name in ("level", "points_xy", "strides", "boxes_xyxy", "labels", "valuable_weight"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(t, name) for t in alone])), name
    points = PYRAMID.grid_of(together.sizes).points
    for number, one in enumerate(alone):
        index = together.index[together.image == number]
        np.testing.assert_array_equal(points[index], PYRAMID.grid_of(one.sizes).points[one.index])


def test_a_batch_without_points_has_empty_targets() -> None:
    empty, rows = three_views()[2], np.zeros((0, 64), np.int16)
    codes = {"edge_codes": rows, "edge_steps": np.zeros(0, np.float32), "cls_codes": rows[:, :4]}
    teacher = stored_teacher_batch([StoredView(view=empty, **codes, cls_step=0.1)])
    assert (teacher.edge_logits().shape, teacher.cls_logits().shape) == ((0, 4, 17), (0, 4))
    assert batch_labels([empty], (64, 64), PYRAMID).index.shape == (0,)


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["codes", "logits"])
def test_codes_and_plain_logits_give_what_the_store_gives(precision: Precision, stores: Path) -> None:
    store = store_of(stores, precision)
    view = store.read(store.keys[0])
    teacher = stored_teacher_batch([view, view])
    edges, classes = teacher.edge_logits(), teacher.cls_logits()
    np.testing.assert_allclose(edges[len(edges) // 2 :], view.edge_logits(), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(classes[: len(classes) // 2], view.cls_logits(), rtol=1e-6)
    # Codes travel to the device as integers and become logits there.
    moved = teacher.to(torch.device("meta"))
    dtype = torch.int16 if precision == QUANTIZED else torch.float32
    assert (moved.edges.dtype, moved.classes.dtype) == (dtype, dtype)
    for logits in (moved.edge_logits(), moved.cls_logits()):
        assert (logits.device.type, logits.dtype) == ("meta", torch.float32)


@pytest.mark.parametrize("lossless", [False, True])
def test_a_teachers_position_is_found_by_its_point_in_a_batch_of_several_sizes(lossless: bool) -> None:
    """Codes of a view tell its point: (x, y) of the position, in cells of 8 px, and its stride."""
    sizes, grid, parts = [(64, 96), (32, 96), (64, 32), (40, 24)], PYRAMID.grid((64, 96)), []
    for alone in map(PYRAMID.grid, sizes):
        told = np.column_stack([alone.points / 8, alone.point_strides])
        edges = np.repeat(alone.points[:, :1], 4, axis=1)
        parts.append(
            StoredDense(
                classes=told.astype(np.float32 if lossless else np.uint8),
                distances=edges.astype(np.float32 if lossless else np.uint16),
                scores=None if lossless else np.linspace(0, 1, 200, dtype=np.float32),
            )
        )
    batch = dense_teacher(parts, sizes, grid)
    expected = np.column_stack([grid.points / 8, grid.point_strides])
    for place, valid in enumerate(map(grid.valid, sizes)):
        classes = batch.classes[place].numpy()
        assert np.array_equal(classes[valid], expected[valid])
        assert np.array_equal(batch.distances[place, :, 2].numpy()[valid], grid.points[valid, 0])
        assert not classes[~valid].any()
    assert batch.unit == (1 if lossless else 1 / 32)
