"""Exported views: plain arrays without pickles, equal to what the store reads."""

from pathlib import Path

import numpy as np
import pytest
from store_cases import BINS, CLASSES, LOSSLESS, QUANTIZED, make_plan, write_store

from pipeline.codec.precision import Precision
from pipeline.core.errors import CacheError
from pipeline.store.reader.reader import TargetStore
from pipeline.store.tools.export import CONTENT, choose_views, export_views, views_of_image, write_npz
from pipeline.store.tools.points import locate_points


@pytest.fixture
def store(tmp_path: Path) -> TargetStore:
    return TargetStore.open(write_store(tmp_path, make_plan()))


@pytest.mark.parametrize("precision", [QUANTIZED, LOSSLESS], ids=["quantized", "lossless"])
def test_every_view_is_found_by_its_offsets(tmp_path: Path, precision: Precision) -> None:
    store = TargetStore.open(write_store(tmp_path, make_plan(precision)))
    arrays = export_views(store, store.keys)
    for row, key in enumerate(store.keys):
        view = store.read(key)
        planned = view.view
        points, main, boxes = (
            slice(arrays[name][row], arrays[name][row + 1])
            for name in ("point_offset", "main_offset", "box_offset")
        )
        assert (arrays["image_id"][row], arrays["view"][row]) == key
        assert tuple(arrays["resized_hw"][row]) == planned.geometry.resized_hw
        assert tuple(arrays["padded_hw"][row]) == planned.geometry.padded_hw
        assert arrays["flip"][row] == planned.geometry.flip
        np.testing.assert_array_equal(arrays["edge_logits"][points], view.edge_logits())
        np.testing.assert_array_equal(arrays["cls_logits"][main], view.cls_logits())
        np.testing.assert_array_equal(arrays["level"][points], planned.points.level)
        np.testing.assert_array_equal(arrays["main_gt"][points], planned.points.main_gt)
        np.testing.assert_array_equal(arrays["valuable_weight"][points], planned.points.valuable_weight)
        places = locate_points(planned, store.schema.pyramid)
        np.testing.assert_array_equal(arrays["point_xy"][points], places.xy)
        np.testing.assert_array_equal(arrays["boxes_xyxy"][boxes], planned.boxes_xyxy)
        np.testing.assert_array_equal(arrays["labels"][boxes], planned.labels)
        mine = arrays["main_point"][main]
        np.testing.assert_array_equal(mine, points.start + np.flatnonzero(planned.points.main_region))
    assert (arrays["main_gt"][arrays["main_point"]] >= 0).all()


def test_a_file_is_read_without_pickles_and_has_the_documented_arrays(
    store: TargetStore, tmp_path: Path
) -> None:
    arrays = export_views(store, store.keys[:3])
    write_npz(tmp_path / "new/some.views", arrays)
    with np.load(tmp_path / "new/some.views", allow_pickle=False) as read:
        assert set(read) == set(CONTENT) == set(arrays)
        for name in CONTENT:
            np.testing.assert_array_equal(read[name], arrays[name])
            assert str(read[name].dtype) in CONTENT[name]


def test_no_view_at_all_still_has_every_array(store: TargetStore) -> None:
    arrays = export_views(store, [])
    assert set(arrays) == set(CONTENT)
    assert arrays["edge_logits"].shape == (0, 4, BINS)
    assert arrays["cls_logits"].shape == (0, CLASSES)
    assert arrays["point_offset"].tolist() == [0]


def test_views_are_spread_over_the_store_or_those_of_the_named_images(store: TargetStore) -> None:
    assert choose_views(store, None, None) == list(store.keys)
    spread = choose_views(store, None, 3)
    assert spread == [store.keys[0], store.keys[6], store.keys[13]]
    last, first = store.keys[-1].image_id, store.keys[0].image_id
    assert [key.image_id for key in choose_views(store, [last, first, last], None)] == [first] * 2 + [
        last
    ] * 2
    assert len(choose_views(store, [last, first], 3)) == 3


def test_an_unknown_image_is_refused_with_ids_near_it(store: TargetStore) -> None:
    assert views_of_image(store, 10) == (0, 1)
    with pytest.raises(CacheError, match=r"one of the 7 images of .*, such as 10, 17, 38, .*, but got 11"):
        choose_views(store, [11], None)
