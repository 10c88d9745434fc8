"""What is known of a store before it is written: its views, whoever finds them, and its size."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from forked import ensure_loaded
from teacher_cases import QUANTIZED, small_inputs, small_layout, small_teacher, small_view_set
from training_cases import IMAGES, store_of

from pipeline.codec.dense import DensePrecision
from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.regions.view_set import ViewSet, label_views
from pipeline.store.format.schema import StoreSchema
from pipeline.store.format.table import ViewIndex, fit_schema
from pipeline.teacher.layout import (
    StoreLayout,
    build_index,
    estimate_bytes,
    probe_dense,
    require_disk,
    say_if_larger,
    scratch_folder,
)
from pipeline.views.geometry import PerEpochViewsConfig, Scale, ViewsConfig

SHAPES = {"views": 4000, "boxes": 11366, "points": 336606, "main": 73001, "bins": 17, "classes": 4}
RELEASED = {"views": 89, "boxes": 794, "points": 75699, "main": 4694, "bins": 8, "classes": 80}
DIOU = {**RELEASED, "points": 50644}
"""NanoDet-Plus over 89 COCO images, with the two definitions of the valuable region."""

MEASURED = [
    (SHAPES, 0.03, 0.03, 18_995_939),
    (SHAPES, None, None, 74_314_363),
    (RELEASED, 0.04, 0.03, 21_002 * 89),
    (RELEASED, 0.2, 0.15, 12_500 * 89),
    (RELEASED, None, None, 9_403_381),
    (DIOU, 0.04, 0.03, 17_498 * 89),
    (DIOU, 0.2, 0.15, 10_999 * 89),
    (DIOU, None, None, 6_679_546),
]


@pytest.mark.parametrize(("sizes", "edge_step", "cls_step", "measured"), MEASURED)
def test_the_estimate_is_not_too_small_and_at_most_four_tenths_too_large(
    sizes: dict[str, int], edge_step: float | None, cls_step: float | None, measured: int
) -> None:
    schema = StoreSchema(
        bins=sizes["bins"],
        num_classes=sizes["classes"],
        strides=(8, 16, 32),
        precision=Precision(edge_step=edge_step, max_step_factor=8.0, cls_step=cls_step),
        views_per_partition=512,
        fingerprint={},
        provenance={},
    )
    views, boxes = sizes["views"], sizes["boxes"]
    counts = np.zeros((views, 3), np.int64)
    counts[0] = sizes["points"], sizes["main"], boxes  # totals in the first view: only sums matter
    table = ViewIndex(
        image_id=np.arange(views),
        view=np.zeros(views, np.int32),
        geometry=np.zeros((views, 7), np.int32),
        counts=counts,
        boxes_xyxy=np.zeros((boxes, 4), np.float32),
        labels=np.zeros(boxes, np.int32),
    )
    layout = StoreLayout(schema=fit_schema(schema, table), table=table)
    assert 0.98 <= estimate_bytes(layout) / measured <= 1.42


def test_the_estimate_counts_classes_of_the_valuable_region(stores: Path) -> None:
    view_set, store = small_view_set(stores, IMAGES), store_of(stores, QUANTIZED, valuable_classes=True)
    layout = small_layout(view_set, QUANTIZED, valuable_classes=True)
    assert 0.6 < store.statistics["bytes"] / estimate_bytes(layout) <= 1


def test_the_estimate_of_every_position_is_a_bound_and_a_larger_result_is_said(
    stores: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dense = DensePrecision(floor=0.005)
    view_set, store = small_view_set(stores, IMAGES), store_of(stores, QUANTIZED, dense=dense)
    unprobed = small_layout(view_set, QUANTIZED, "w0", dense=dense)
    teacher = small_teacher(view_set.manifest, dense=dense)
    layout = replace(unprobed, dense_row_bytes=probe_dense(teacher, view_set, unprobed.schema))
    assert 0.6 < store.statistics["bytes"] / estimate_bytes(layout) <= 1
    sizes = [path.stat().st_size for path in store.path.glob("dense/*/c/*/0")]
    positions = sum(len(view_set.pyramid.grid(view_set.geometry(key).padded_hw)) for key in store.keys)
    larger = replace(layout, dense_row_bytes=layout.dense_row_bytes + 1)
    assert estimate_bytes(larger) - estimate_bytes(layout) == positions
    for bound in (None, layout.dense_row_bytes, sum(sizes) / positions + 1e-6):
        say_if_larger(store.path, replace(layout, dense_row_bytes=bound))
    assert not caplog.records
    say_if_larger(store.path, replace(layout, dense_row_bytes=sum(sizes) / positions - 1e-6))
    assert "the dense arrays take" in caplog.text


def test_a_store_that_cannot_fit_is_refused_and_what_a_killed_run_left_needs_no_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = small_layout(small_view_set(tmp_path), QUANTIZED)
    usage = type("Usage", (), {"free": estimate_bytes(layout) - 100})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(CacheError, match=r"expected room for about \S+ KB, but \S+ KB are free"):
        require_disk(layout, tmp_path)
    begun = scratch_folder(layout.schema, tmp_path) / "store.zarr/points"
    begun.mkdir(parents=True)
    (begun / "shard").write_bytes(bytes(100))
    require_disk(layout, tmp_path)


def every_plan(folder: Path) -> list[ViewSet]:
    all_views = small_view_set(folder, 7)
    drawn = PerEpochViewsConfig(epochs=3, long_edge=64, short_edges=(32, 64), flip_probability=0.5, seed=0)
    nothing = replace(all_views, manifest=replace(all_views.manifest, images=all_views.manifest.images[:0]))
    return [all_views, replace(all_views, views=drawn), nothing]


@pytest.mark.parametrize(("workers", "processes"), [(1, False), (2, False), (2, True)])
def test_runs_threads_and_processes_make_the_table_of_all_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, processes: bool
) -> None:
    ensure_loaded()
    monkeypatch.setattr("pipeline.teacher.layout.VIEWS_PER_RUN", 4)
    monkeypatch.setattr("pipeline.teacher.layout.PROCESSES_FROM_VIEWS", 1 if processes else 1000)
    for all_views in every_plan(tmp_path)[: 1 if processes else 3]:
        table = build_index(all_views, workers)
        assert table.digest() == ViewIndex.from_views(all_views).digest()


@pytest.mark.parametrize(
    ("batch_size", "scales", "named"),
    [(1, [(64, 64), (96, 96)], False), (3, [(64, 64)], False), (3, [(64, 64), (96, 96)], True)],
)
def test_how_batches_are_made_is_in_a_fingerprint_where_it_decides_who_is_in_one(
    tmp_path: Path, batch_size: int, scales: list[Scale], named: bool
) -> None:
    views = ViewsConfig(scales=tuple(scales), flips=(False,))
    view_set = replace(small_view_set(tmp_path), views=views)
    fingerprint = small_inputs(view_set, QUANTIZED, batch_size=batch_size).fingerprint
    assert ("batches" in fingerprint["teacher"]) == named


def test_keys_of_some_rows_are_those_of_all(tmp_path: Path) -> None:
    for all_views in every_plan(tmp_path):
        keys = all_views.keys()
        assert len(all_views) == len(keys)
        assert keys == sorted(view.key for view in all_views)
        assert keys[3:9] == all_views.keys(slice(3, 9))


def test_remembered_views_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_views = small_view_set(tmp_path)
    remembering, found = all_views.remembering(), []
    name = "pipeline.regions.view_set.label_views"
    monkeypatch.setattr(name, lambda *args: found.extend(args[0]) or label_views(*args))
    table = build_index(remembering)
    assert table.digest() == ViewIndex.from_views(remembering.in_rows(slice(None))).digest()
    assert [key for key, *_ in found] == all_views.keys()
    monkeypatch.setattr("pipeline.regions.view_set.MAX_REMEMBERED_VIEWS", len(all_views) - 1)
    assert all_views.remembering().remembered is None
