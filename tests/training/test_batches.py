"""Batches: a point keeps its place in the image, whatever the batch is padded to."""

import numpy as np
import torch
from batch_cases import PYRAMID, three_views

from pipeline.store.reader.stored import StoredView
from pipeline.student.teacher_batch import stored_teacher_batch
from pipeline.training.batches import batch_labels


def test_points_keep_their_coordinates_in_a_wider_batch() -> None:
    views = three_views()
    together = batch_labels(views, (96, 96), PYRAMID)
    points = PYRAMID.grid_of(together.sizes).points
    for number, view in enumerate(views):
        alone = batch_labels([view], view.geometry.padded_hw, PYRAMID)
        own_points = PYRAMID.grid_of(alone.sizes).points
        index = together.index[together.image == number]
        np.testing.assert_array_equal(points[index], own_points[alone.index])


def test_a_batch_is_its_views_one_after_another() -> None:
    views = three_views()
    together = batch_labels(views, (96, 96), PYRAMID)
    alone = [batch_labels([view], view.geometry.padded_hw, PYRAMID) for view in views]
    for name in ("level", "points_xy", "strides", "boxes_xyxy", "labels", "valuable_weight"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(t, name) for t in alone])), name


def test_a_batch_without_points_has_empty_targets() -> None:
    empty = three_views()[2]
    stored = StoredView(
        view=empty,
        edge_codes=np.zeros((0, 64), np.int16),
        edge_steps=np.zeros(0, np.float32),
        cls_codes=np.zeros((0, 4), np.int16),
        cls_step=0.1,
    )
    soft = stored_teacher_batch([stored])
    assert soft.edge_logits().shape == (0, 4, 17)
    assert soft.cls_logits().shape == (0, 4)
    assert batch_labels([empty], (64, 64), PYRAMID).index.shape == (0,)


def test_codes_and_plain_logits_give_what_the_store_gives() -> None:
    view = three_views()[0]
    points, main = len(view.points), view.points.main_count
    rng = np.random.default_rng(0)
    coded = StoredView(
        view=view,
        edge_codes=rng.integers(0, 400, (points, 64), dtype=np.int16),
        edge_steps=rng.random(points, dtype=np.float32) + 0.1,
        cls_codes=rng.integers(-90, 90, (main, 4), dtype=np.int16),
        cls_step=0.1,
    )
    plain = StoredView(
        view=view,
        edge_codes=rng.standard_normal((points, 68), dtype=np.float32),
        edge_steps=None,
        cls_codes=rng.standard_normal((main, 4), dtype=np.float32),
        cls_step=None,
    )
    for stored in (coded, plain):
        soft = stored_teacher_batch([stored, stored])
        assert (soft.edge_steps is None) == (stored is plain)
        np.testing.assert_allclose(soft.edge_logits()[points:], stored.edge_logits(), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(soft.cls_logits()[:main], stored.cls_logits(), rtol=1e-6)


def test_codes_travel_to_the_device_as_integers_and_become_logits_there() -> None:
    view = three_views()[0]
    points, main = len(view.points), view.points.main_count
    stored = StoredView(
        view=view,
        edge_codes=np.zeros((points, 64), np.int16),
        edge_steps=np.ones(points, np.float32),
        cls_codes=np.zeros((main, 4), np.int16),
        cls_step=0.1,
    )
    there = stored_teacher_batch([stored]).to(torch.device("meta"))
    assert (there.edges.dtype, there.classes.dtype) == (torch.int16, torch.int16)
    for logits in (there.edge_logits(), there.cls_logits()):
        assert (logits.device.type, logits.dtype) == ("meta", torch.float32)
