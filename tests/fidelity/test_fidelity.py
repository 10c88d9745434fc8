"""A store against the live teacher: what agrees passes, whatever else differs is named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs
from store_cases import make_view
from teacher_cases import QUANTIZED, small_layout, small_teacher, small_view_set
from training_cases import IMAGES, store_of

from pipeline.codec.dense import DensePrecision
from pipeline.codec.precision import LogarithmicWeights
from pipeline.core.errors import CacheError
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.fidelity import (
    DenseFidelity,
    PointLogits,
    check_regions,
    compare,
    find_precision,
    measure_dense,
    measure_fidelity,
    require_bounds,
    sample_keys,
)
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import ViewSet
from pipeline.store.reader.reader import TargetStore
from pipeline.teacher.run import write_store
from pipeline.views.types import ViewKey

CONFIG = FidelityConfig(
    temperature=10, cls_temperature=2, max_kl=1e-4, max_loss_error=0.02, max_gradient_error=0.1
)


@pytest.fixture
def view_set(stores: Path) -> ViewSet:
    return small_view_set(stores, IMAGES)


@pytest.fixture
def store(stores: Path) -> TargetStore:
    return store_of(stores, QUANTIZED)


def test_the_live_teacher_agrees_with_its_store_and_another_teacher_does_not(
    view_set: ViewSet, store: TargetStore
) -> None:
    keys = sample_keys(store.keys, 4, seed=0)
    same = measure_fidelity(store, view_set, small_teacher(view_set.manifest), CONFIG, keys)
    require_bounds(same, CONFIG)
    assert same.equal_regions
    assert 0 < same.gradient_error < 0.1
    other = measure_fidelity(store, view_set, small_teacher(view_set.manifest, seed=1), CONFIG, keys)
    with pytest.raises(CacheError, match=r"fidelity: expected kl_mean of at most .* by other code or by"):
        require_bounds(other, CONFIG)


def test_errors_of_classes_in_the_valuable_region_count(stores: Path, view_set: ViewSet) -> None:
    """Beside the main region's, which a store without them has alone."""
    store = store_of(stores, QUANTIZED, valuable_classes=True)
    views = [view_set.view(key) for key in store.keys]
    teacher = small_teacher(view_set.manifest, valuable_classes=True)
    live = PointLogits.joined(views, list(teacher.run(views)))
    assert compare(len(views), live, live, CONFIG).kd_loss_error == 0
    wrong = torch.where(live.main[:, None], live.classes, live.classes.flip(-1))
    assert compare(len(views), live, live._replace(classes=wrong), CONFIG).kd_loss_error > 0.01
    assert 0 < measure_fidelity(store, view_set, teacher, CONFIG, store.keys).kd_loss_error < 0.01


def test_a_precision_that_is_too_coarse_is_answered_by_one_that_passes(
    tmp_path: Path, view_set: ViewSet, store: TargetStore
) -> None:
    bounds = structs.replace(CONFIG, max_gradient_error=0.02, max_kl=1.0)
    keys, teacher = list(view_set.keys()), small_teacher(view_set.manifest)
    with pytest.raises(CacheError, match=r"gradient_error of at most 0.02, but got .* choose finer steps"):
        require_bounds(measure_fidelity(store, view_set, teacher, bounds, keys), bounds)
    views = [view_set.view(key) for key in keys]
    finer = find_precision(store.schema, views, list(teacher.run(views)), bounds)
    assert finer
    output = tmp_path / "finer.zarr"
    write_store(small_layout(view_set, finer), view_set, teacher, scratch_root=tmp_path, output=output)
    require_bounds(measure_fidelity(TargetStore.open(output), view_set, teacher, bounds, keys), bounds)


def test_a_weight_further_off_than_its_code_allows_is_named_with_field_view_and_values() -> None:
    view, code = make_view(ViewKey(7, 1), points=4, boxes=0), LogarithmicWeights()
    weight = view.points.valuable_weight
    near = replace(view.points, valuable_weight=weight * np.float32(1.0026))
    check_regions(view, replace(view, points=near), code, Path("s"))
    far = weight.copy()
    far[2] *= np.float32(1.01)
    message = f"valuable_weight of image_id=7, view=1: row 2 is {far[2]:g} in the store, but {weight[2]:g}"
    with pytest.raises(CacheError, match=message):
        check_regions(view, replace(view, points=replace(view.points, valuable_weight=far)), code, Path("s"))


def dense_fidelity(stores: Path, floor: float, live_seed: int = 0) -> DenseFidelity:
    view_set = small_view_set(stores, IMAGES)
    store = store_of(stores, QUANTIZED, dense=DensePrecision(floor=floor))
    return measure_dense(store, view_set, small_teacher(view_set.manifest, live_seed), 0, store.keys)


def test_a_lossless_dense_part_has_no_error(stores: Path) -> None:
    fidelity = dense_fidelity(stores, 0)
    for name in ("cls_loss", "box_loss", "cls_last_layer", "box_last_layer"):
        assert getattr(fidelity, f"bckd_{name}_error") < 1e-4
    assert fidelity.box_share_below_floor == 0


def test_dense_errors_grow_with_the_floor_and_are_refused(stores: Path) -> None:
    fine, coarse = (dense_fidelity(stores, floor) for floor in (0.005, 0.45))
    require_bounds(fine, CONFIG)
    assert 0 < fine.bckd_cls_last_layer_error < coarse.bckd_cls_last_layer_error
    assert fine.box_share_below_floor < 0.05 < coarse.box_share_below_floor <= 1
    with pytest.raises(CacheError, match=r"expected \w+ of at most .* a lower cache_teacher\.dense\.floor"):
        require_bounds(coarse, CONFIG)


def test_dense_outputs_of_another_teacher_are_refused(stores: Path) -> None:
    with pytest.raises(CacheError, match="bckd_cls_loss_error"):
        require_bounds(dense_fidelity(stores, 0.005, live_seed=1), CONFIG)


def test_other_regions_than_stored_are_refused(view_set: ViewSet, store: TargetStore) -> None:
    moved, teacher = replace(view_set, regions=RegionsConfig(vlr="paper")), small_teacher(view_set.manifest)
    message = r"regions of stored views differ .*: level of image_id=\d+, view=\d: \d+ rows in"
    with pytest.raises(CacheError, match=message):
        measure_fidelity(store, moved, teacher, CONFIG, sample_keys(store.keys, 4, seed=0))
