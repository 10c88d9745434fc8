"""The dense arrays against the live teacher."""

from pathlib import Path

import pytest
from teacher_cases import QUANTIZED, small_teacher, small_view_set
from training_cases import IMAGES, store_of

from pipeline.codec.dense import DensePrecision
from pipeline.core.errors import CacheError
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.dense import measure_dense
from pipeline.fidelity.fidelity import DenseFidelity, require_bounds

CONFIG = FidelityConfig(temperature=10, cls_temperature=2)


def fidelity_of(stores: Path, floor: float, live_seed: int = 0) -> DenseFidelity:
    view_set = small_view_set(stores, IMAGES)
    store = store_of(stores, QUANTIZED, dense=DensePrecision(floor=floor))
    return measure_dense(store, view_set, small_teacher(view_set.manifest, live_seed), 0, store.keys)


def test_a_lossless_part_has_no_error(stores: Path) -> None:
    fidelity = fidelity_of(stores, 0)
    for name in ("cls_loss", "box_loss", "cls_last_layer", "box_last_layer"):
        assert getattr(fidelity, f"bckd_{name}_error") < 1e-4
    assert fidelity.box_share_below_floor == 0


def test_errors_grow_with_the_floor_and_are_refused(stores: Path) -> None:
    fine, coarse = (fidelity_of(stores, floor) for floor in (0.005, 0.45))
    require_bounds(fine, CONFIG)
    assert 0 < fine.bckd_cls_last_layer_error < coarse.bckd_cls_last_layer_error
    assert fine.box_share_below_floor < 0.05 < coarse.box_share_below_floor
    with pytest.raises(CacheError, match=r"expected \w+ of at most .* a lower cache_teacher\.dense\.floor"):
        require_bounds(coarse, CONFIG)


def test_another_teacher_is_refused(stores: Path) -> None:
    with pytest.raises(CacheError, match="bckd_cls_loss_error"):
        require_bounds(fidelity_of(stores, 0.005, live_seed=1), CONFIG)
