"""The teacher on views: batch = single, selection = the full maps, and no silent nonsense."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batch_cases import STRIDES
from teacher_cases import small_plan, small_teacher

from pipeline.cache.records import SoftTargets
from pipeline.data.images import apply_view, batch_images, read_image
from pipeline.errors import TeacherError
from pipeline.regions.grid import level_lengths
from pipeline.teacher.soft_targets import equal_size_batches, require_finite


def test_selected_rows_are_those_of_the_full_maps(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    teacher = small_teacher(plan.manifest)
    for view, soft in zip(plan, teacher.run(list(plan)), strict=True):
        record = plan.manifest.by_id[view.key.image_id]
        image = read_image(plan.manifest.image_path(record), view.geometry.original_hw)
        with torch.inference_mode():
            raw = teacher.model(batch_images([apply_view(image, view.geometry)], [view.geometry.padded_hw]))
        starts = np.cumsum([0, *level_lengths(raw.sizes)])[:-1]
        index = starts[view.points.level] + view.points.position
        np.testing.assert_allclose(soft.edge_logits, raw.edge_logits[0, index], rtol=1e-4, atol=1e-5)
        main = index[view.points.main_region]
        np.testing.assert_allclose(soft.cls_logits, raw.cls_logits[0, main], rtol=1e-4, atol=1e-5)
        assert len(raw.sizes) == len(STRIDES)


def test_batches_hold_views_of_one_padded_size_in_order(tmp_path: Path) -> None:
    views = list(small_plan(tmp_path))
    batches = equal_size_batches(views, 3)
    assert [view for batch in batches for view in batch] == views
    assert all(len(batch) <= 3 for batch in batches)
    assert all(len({view.geometry.padded_hw for view in batch}) == 1 for batch in batches)


def test_outputs_that_are_not_finite_stop_the_run_with_the_image_named(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    teacher = small_teacher(plan.manifest)
    with torch.no_grad():
        teacher.model.bbox_head.gfl_reg.bias.fill_(float("nan"))
    with pytest.raises(TeacherError, match=r"image_id=1, view=0: expected finite teacher outputs"):
        list(teacher.run(list(plan)))


def test_infinite_class_logits_are_named(tmp_path: Path) -> None:
    view = next(iter(small_plan(tmp_path)))
    points, main = len(view.points), view.points.main_count
    soft = SoftTargets(
        edge_logits=np.zeros((points, 4, 17), np.float32),
        cls_logits=np.full((main, 4), np.inf, np.float32),
    )
    with pytest.raises(TeacherError, match="cls_logits"):
        require_finite(soft, view)
