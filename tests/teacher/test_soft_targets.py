"""The teacher on views: batch = single, selection = the full maps, and no silent nonsense."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_cases import PYRAMID
from teacher_cases import small_plan, small_teacher

from pipeline.core.errors import TeacherError
from pipeline.detector.config import NetworkPrecision
from pipeline.teacher.extractor import ThreadCounts, equal_size_batches, require_finite
from pipeline.views.conventions import GFL_PREPROCESSING
from pipeline.views.images import apply_view, batch_images, read_image
from pipeline.views.types import KeptPoints, SoftTargets


def test_selected_rows_are_those_of_the_full_maps(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    teacher = small_teacher(plan.manifest)
    for view, soft in zip(plan, teacher.run(list(plan)), strict=True):
        record = plan.manifest.image(view.key.image_id)
        image = read_image(*plan.manifest.image_file(record))
        with torch.inference_mode():
            pixels = apply_view(image, view.geometry, GFL_PREPROCESSING)
            raw = teacher.model(batch_images([pixels], [view.geometry.padded_hw], GFL_PREPROCESSING))
        starts = np.cumsum([0, *(height * width for height, width in raw.sizes)])[:-1]
        index = starts[view.points.level] + view.points.position
        np.testing.assert_allclose(soft.edge_logits, raw.edge_logits[0, index], rtol=1e-4, atol=1e-5)
        main = index[view.points.main_region]
        np.testing.assert_allclose(soft.cls_logits, raw.cls_logits[0, main], rtol=1e-4, atol=1e-5)
        assert len(raw.sizes) == len(PYRAMID.strides)


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 0.2), ("float16", 0.03)])
def test_a_lower_precision_says_nearly_the_same_and_is_handed_over_in_float32(
    tmp_path: Path, precision: NetworkPrecision, most: float
) -> None:
    """Logits here have a spread of 1 to 2; 8 and 11 bits of mantissa differ in the third and fourth digit."""
    plan = small_plan(tmp_path)
    exact = small_teacher(plan.manifest)
    differences = []
    for lower, soft in zip(
        replace(exact, precision=precision).run(list(plan)), exact.run(list(plan)), strict=True
    ):
        assert lower.edge_logits.dtype == lower.cls_logits.dtype == np.float32
        differences.append(np.abs(lower.edge_logits - soft.edge_logits).max(initial=0))
    assert 0 < max(differences) < most


def test_running_a_teacher_leaves_the_callers_threads_alone(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(small_teacher(plan.manifest).run(list(plan)[:2]))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_one_thread_drives_a_gpu_and_one_a_core_the_cpu() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    small, coco = 32 * 96 * 96, 8 * 1333 * 800
    assert ThreadCounts.of(gpu, 1, coco) == ThreadCounts(decoders=1, forwards=1)
    assert ThreadCounts.of(gpu, 64, coco) == ThreadCounts(decoders=8, forwards=1)
    assert ThreadCounts.of(cpu, 1, small) == ThreadCounts(decoders=1, forwards=1)
    assert ThreadCounts.of(cpu, 64, small) == ThreadCounts(decoders=8, forwards=64)
    assert ThreadCounts.of(cpu, 64, coco) == ThreadCounts(decoders=1, forwards=3), "7 GB"
    assert ThreadCounts.of(cpu, 64, 100 * coco) == ThreadCounts(decoders=1, forwards=1)


def test_views_without_points_have_empty_targets_in_their_place(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    views = list(plan)[:3]
    points = views[1].points
    none = KeptPoints(
        level=points.level[:0],
        position=points.position[:0],
        main_gt=points.main_gt[:0],
        valuable_weight=points.valuable_weight[:0],
    )
    whole = list(small_teacher(plan.manifest).run(views))
    views[1] = replace(views[1], points=none)
    targets = list(small_teacher(plan.manifest).run(views))
    assert targets[1].edge_logits.shape == (0, 4, 17)
    assert targets[1].cls_logits.shape == (0, 4)
    for row in (0, 2):
        np.testing.assert_array_equal(targets[row].edge_logits, whole[row].edge_logits)
        np.testing.assert_array_equal(targets[row].cls_logits, whole[row].cls_logits)


def test_batches_hold_views_of_one_padded_size_in_order(tmp_path: Path) -> None:
    views = list(small_plan(tmp_path))
    batches = equal_size_batches(views, 3)
    assert [view for batch in batches for view in batch] == views
    assert all(len(batch) <= 3 for batch in batches)
    assert all(len({view.geometry.padded_hw for view in batch}) == 1 for batch in batches)


def test_infinite_class_logits_are_named(tmp_path: Path) -> None:
    view = next(iter(small_plan(tmp_path)))
    points, main = len(view.points), view.points.main_count
    soft = SoftTargets(
        edge_logits=np.zeros((points, 4, 17), np.float32),
        cls_logits=np.full((main, 4), np.inf, np.float32),
    )
    with pytest.raises(TeacherError, match="cls_logits"):
        require_finite(soft, view)
