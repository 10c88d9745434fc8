"""A store with class logits in the valuable region as well: from the network to the reader."""

from pathlib import Path

import numpy as np
import torch
import zarr
from store_cases import content_of
from teacher_cases import LOSSLESS, QUANTIZED, small_layout, small_teacher, small_view_set
from training_cases import IMAGES, store_of

from pipeline.api.placement import place_targets
from pipeline.fidelity.config import FidelityConfig
from pipeline.fidelity.fidelity import PointLogits, compare, measure_fidelity
from pipeline.store.format.schema import StoreSchema
from pipeline.teacher.expected import estimate_bytes

CONFIG = FidelityConfig(temperature=10, cls_temperature=2)


def test_they_are_the_networks_own_at_every_kept_point(stores: Path) -> None:
    view_set, store = small_view_set(stores, IMAGES), store_of(stores, LOSSLESS, valuable_classes=True)
    teacher, root = small_teacher(view_set.manifest), zarr.open_group(store.path, mode="r")
    for row, key in enumerate(store.keys):
        view = view_set.view(key)
        (logits,) = teacher.outputs_of(*teacher.batches([view])).cls_logits.numpy()
        at_points = logits[
            view_set.pyramid.grid(view.geometry.padded_hw).flatten(view.points.level, view.points.position)
        ]
        first, count = root["views/extent"][row][:2]
        np.testing.assert_allclose(
            root["points/cls_codes"][first : first + count], at_points, rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(
            store.read(key).soft_targets().cls_logits, root["points/cls_codes"][first : first + count]
        )
        np.testing.assert_allclose(
            store[key].cls_logits, at_points[view.points.main_region], rtol=1e-4, atol=1e-5
        )


def test_all_else_is_as_in_a_store_without_them(stores: Path) -> None:
    """An ordinary store does not so much as name what it lacks."""
    more, less = (
        content_of(store_of(stores, QUANTIZED, valuable_classes=each).path) for each in (True, False)
    )
    assert b"valuable_classes" in more["zarr.json"]
    assert b"valuable_classes" not in less["zarr.json"]
    same = [name for name in less if not name.startswith("main/") and name != "zarr.json"]
    assert {name: more[name] for name in same} == {name: less[name] for name in same}


def test_a_schema_remembers_them(stores: Path) -> None:
    schema = store_of(stores, QUANTIZED, valuable_classes=True).schema
    assert schema.valuable_classes
    assert StoreSchema.from_json(schema.to_json()) == schema
    assert schema.fingerprint["valuable_classes"] is True


def test_the_estimate_counts_them(stores: Path) -> None:
    view_set, store = small_view_set(stores, IMAGES), store_of(stores, QUANTIZED, valuable_classes=True)
    layout = small_layout(view_set, QUANTIZED, valuable_classes=True)
    assert 0.6 < store.statistics["bytes"] / estimate_bytes(layout.schema, layout.table) <= 1


def test_their_error_counts(stores: Path) -> None:
    """Beside the main region's, which a store without them has alone."""
    view_set, store = small_view_set(stores, IMAGES), store_of(stores, QUANTIZED, valuable_classes=True)
    views = [view_set.view(key) for key in store.keys]
    teacher = small_teacher(view_set.manifest, valuable_classes=True)
    live = PointLogits.joined(views, list(teacher.run(views)))
    same = compare(len(views), live, live, CONFIG)
    assert same.kd_loss_error == 0
    wrong = torch.where(live.main[:, None], live.classes, live.classes.flip(-1))
    other = compare(len(views), live, live._replace(classes=wrong), CONFIG)
    assert other.kd_loss_error > 0.01
    assert 0 < measure_fidelity(store, view_set, teacher, CONFIG, store.keys).kd_loss_error < 0.01


def test_a_training_loop_of_ones_own_gets_those_of_the_main_region(stores: Path) -> None:
    more, less = (store_of(stores, QUANTIZED, valuable_classes=each) for each in (True, False))
    for batch_hw in ((64, 64), (96, 96)):
        pair = [place_targets([store[key] for key in store.keys[:3]], batch_hw) for store in (more, less)]
        np.testing.assert_array_equal(*(targets.cls_logits().numpy() for targets in pair))
