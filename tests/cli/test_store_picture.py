"""The picture of a stored view: what it shows is what the store holds; every kind of view can be drawn."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.cli.store_picture import draw_view, last_shown_bin
from pipeline.cli.store_view import GRAY, choose_objects, show_view
from pipeline.codec.precision import Precision
from pipeline.regions.config import RegionsConfig
from pipeline.regions.view_set import label_view
from pipeline.store.format.table import ViewIndex, plan_schema
from pipeline.store.reader.reader import TargetStore
from pipeline.store.writer.writer import finalise, init, write_partition
from pipeline.views.geometry import ViewGeometry, pad_size
from pipeline.views.manifest import GroundTruth
from pipeline.views.pyramid import Pyramid
from pipeline.views.types import LabeledView, SoftTargets, ViewKey

BINS, CLASSES = 17, 3
REGIONS = RegionsConfig()
LOSSLESS = Precision(edge_step=None, max_step_factor=1.0, cls_step=None)
EMPTY, FEW, CROWDED, WIDE = range(4)


def planned(number: int, size_hw: tuple[int, int], boxes: int, strides: tuple[int, ...]) -> LabeledView:
    rng = np.random.default_rng(number)
    corners = rng.uniform(0, 0.6, (boxes, 2)) * size_hw[::-1]
    sides = rng.uniform(0.15, 0.4, (boxes, 2)) * size_hw[::-1]
    geometry = ViewGeometry(original_hw=size_hw, resized_hw=size_hw, padded_hw=pad_size(size_hw), flip=False)
    truth = GroundTruth(
        boxes_xyxy=np.concatenate([corners, corners + sides], axis=1).astype(np.float32),
        labels=rng.integers(0, CLASSES, boxes),
    )
    return label_view(ViewKey(number, 0), geometry, truth, Pyramid(strides, 0.0), REGIONS)


def targets(view: LabeledView) -> SoftTargets:
    """Distributions that point at distances 3, 1, 2 and 4 strides, and classes that grow along the points."""
    points, main = len(view.points), view.points.main_count
    distances = np.array([3, 1, 2, 4])[:, None]
    edges = np.where(np.arange(BINS) == distances, 30.0, 0.0)
    classes = np.arange(main)[:, None] / 10 + np.zeros(CLASSES)
    return SoftTargets(
        edge_logits=np.broadcast_to(edges, (points, 4, BINS)).astype(np.float32),
        cls_logits=classes.astype(np.float32),
    )


def write(folder: Path, strides: tuple[int, ...]) -> TargetStore:
    sizes = [((96, 96), 0), ((96, 96), 2), ((120, 160), 30), ((40, 300), 3)]
    views = [planned(number, size, boxes, strides) for number, (size, boxes) in enumerate(sizes)]
    table = ViewIndex.from_views(views)
    schema = plan_schema(
        table,
        bins=BINS,
        num_classes=CLASSES,
        strides=strides,
        precision=LOSSLESS,
        views_per_partition=4,
        fingerprint={},
        provenance={},
    )
    init(folder / "scratch", schema, table)
    write_partition(folder / "scratch", 0, views, [targets(view) for view in views])
    finalise(folder / "scratch", folder / "targets.zarr")
    return TargetStore.open(folder / "targets.zarr")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return write(tmp_path_factory.mktemp("store"), (8, 16, 32))


def test_an_object_is_shown_at_the_point_where_the_teacher_is_surest(store: TargetStore) -> None:
    view = show_view(store, ViewKey(FEW, 0), None, {0: "cup"})
    points = view.stored.view.points
    shown = choose_objects(view)
    assert {one.box for one in shown} == set(points.main_gt[points.main_region].tolist())
    for one in shown:
        # Class logits grow along the main-region points: the last one of the box is the surest.
        last = np.flatnonzero(points.main_gt == one.box)[-1]
        row = np.count_nonzero(points.main_region[:last])
        assert one.score == pytest.approx(1 / (1 + np.exp(-row / 10)))
        np.testing.assert_array_equal(one.point_xy, view.places.xy[last])
        np.testing.assert_allclose(one.distances_px, one.stride * np.array([3, 1, 2, 4]), rtol=1e-6)
        x, y = one.point_xy
        expected = [x - 3 * one.stride, y - one.stride, x + 2 * one.stride, y + 4 * one.stride]
        np.testing.assert_allclose(one.teacher_xyxy, expected, rtol=1e-6)
        assert (one.target_px >= 0).all()
        assert last_shown_bin(one) >= 5


def test_few_of_many_objects_are_shown_from_large_to_small(store: TargetStore) -> None:
    view = show_view(store, ViewKey(CROWDED, 0), None, {})
    boxes = view.stored.view.boxes_xyxy
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    seen = np.unique(view.stored.view.points.main_gt)[1:]
    shown = choose_objects(view)
    assert len(shown) == 4
    chosen = areas[[one.box for one in shown]]
    assert chosen.max() == areas[seen].max()
    assert chosen.min() == areas[seen].min()
    lefts = [boxes[one.box, 0] for one in shown]
    assert lefts == sorted(lefts)


def test_a_class_without_a_name_is_shown_by_its_number(store: TargetStore) -> None:
    view = show_view(store, ViewKey(FEW, 0), None, {})
    assert view.class_name(0) == f"class {view.stored.view.labels[0]}"


@pytest.mark.parametrize("number", [EMPTY, FEW, CROWDED, WIDE])
def test_every_kind_of_view_can_be_drawn_on_gray(store: TargetStore, number: int) -> None:
    image = Image.open(io.BytesIO(draw_view(show_view(store, ViewKey(number, 0), None, {}))))
    assert image.format == "PNG"
    assert 500 < image.width < 2000
    assert 200 < image.height < 3000
    colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colors == GRAY).all(axis=1).mean() > 0.03


def test_the_pixels_of_a_view_are_in_its_picture(store: TargetStore) -> None:
    height, width = store.view(ViewKey(EMPTY, 0)).geometry.resized_hw
    pixels = np.zeros((height, width, 3), np.uint8) + np.array([10, 200, 60], np.uint8)
    image = Image.open(io.BytesIO(draw_view(show_view(store, ViewKey(EMPTY, 0), pixels, {}))))
    colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colors == (10, 200, 60)).all(axis=1).mean() > 0.3


def test_the_same_view_is_drawn_to_the_same_bytes(store: TargetStore) -> None:
    view = show_view(store, ViewKey(FEW, 0), None, {})
    assert draw_view(view) == draw_view(view)


def test_five_levels_can_be_drawn(tmp_path: Path) -> None:
    store = write(tmp_path, (8, 16, 32, 64, 128))
    assert draw_view(show_view(store, ViewKey(CROWDED, 0), None, {})).startswith(b"\x89PNG")
