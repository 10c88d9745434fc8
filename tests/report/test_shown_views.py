"""Examples go from sharp to ambiguous; what they say of an object is what the store holds of it."""

import numpy as np
import pytest
import torch
from store_view_cases import FEW, write_store_to_show

from pipeline.report.shown_views import (
    EXAMPLES,
    EdgeExample,
    ShownView,
    choose_examples,
    edge_examples,
    kl,
    show_view,
)
from pipeline.store.reader.reader import TargetStore
from pipeline.store.reader.stored import StoredView
from pipeline.views.geometry import ViewGeometry
from pipeline.views.types import KeptPoints, LabeledView, ViewKey


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return write_store_to_show(tmp_path_factory.mktemp("store"), (8, 16, 32))


def examples_of(image_id: int, *widths: tuple[int, int, int, int]) -> list[EdgeExample]:
    """Objects of one view whose edges are uniform over so many bins."""
    teacher = np.zeros((len(widths), 4, 17))
    for box, edges in enumerate(widths):
        for edge, width in enumerate(edges):
            teacher[box, edge, :width] = 1 / width
    boxes = len(widths)
    points = KeptPoints(
        level=np.zeros(boxes, np.int64),
        position=np.arange(boxes),
        main_gt=np.arange(boxes),
        valuable_weight=np.zeros(boxes, np.float32),
    )
    labeled = LabeledView(
        key=ViewKey(image_id, 0),
        geometry=ViewGeometry(original_hw=(96, 96), resized_hw=(96, 96), padded_hw=(96, 96), flip=False),
        boxes_xyxy=np.tile(np.array([32, 32, 64, 64], np.float32), (boxes, 1)),
        labels=np.zeros(boxes, np.int64),
        points=points,
    )
    stored = StoredView(
        view=labeled,
        edge_codes=np.zeros((boxes, 68), np.float32),
        edge_steps=None,
        cls_codes=np.zeros((boxes, 1), np.float32),
        cls_step=None,
    )
    view = ShownView(
        stored=stored,
        pixels=torch.zeros(3, 96, 96, dtype=torch.uint8),
        points_xy=np.full((boxes, 2), 48, np.float32),
        point_strides=np.full(boxes, 8, np.float32),
        teacher=teacher,
        students={},
        level_strides=(8,),
        class_names=["cup"],
    )
    return edge_examples(view)


def test_examples_go_from_sharp_to_ambiguous() -> None:
    examples = [e for n in range(30) for e in examples_of(n, (1 + n % 5, 2, 1 + n % 7, 3))]
    examples += examples_of(100, (1, 1, 1, 1)) + examples_of(101, (1, 1, 1, 17))
    examples += examples_of(102, (17, 17, 17, 17))
    chosen = choose_examples(examples)
    images = [example.view.stored.view.key.image_id for example in chosen]
    assert len(chosen) == EXAMPLES
    assert (images[0], images[-1]) == (100, 102)
    assert 101 in images
    means = [float(example.entropy.mean()) for example in chosen]
    assert means == sorted(means)


def test_a_view_gives_one_example_at_most() -> None:
    examples = examples_of(1, (1, 2, 3, 4), (4, 4, 4, 4)) + examples_of(2, (2, 2, 2, 2))
    assert len(examples) == 3
    assert sorted(e.view.stored.view.key.image_id for e in choose_examples(examples)) == [1, 2]
    assert choose_examples([]) == []


def test_an_object_that_is_small_or_out_of_reach_is_no_example() -> None:
    (example,) = examples_of(1, (1, 2, 3, 4))
    assert choose_examples([example]) == [example]
    labeled = example.view.stored.view
    for box in ((46, 46, 50, 50), (-100, 32, 64, 64)):
        labeled.boxes_xyxy[:] = box
        assert choose_examples(edge_examples(example.view)) == []


def test_an_object_is_shown_at_the_point_where_the_teacher_is_surest(store: TargetStore) -> None:
    view = show_view(store, ViewKey(FEW, 0), None, ["cup"])
    points = view.stored.view.points
    examples = edge_examples(view)
    assert {example.box for example in examples} == set(points.main_gt[points.main_region].tolist())
    for example in examples:
        # Class logits grow along the main-region points: the last one of the box is the surest.
        last = np.flatnonzero(points.main_gt == example.box)[-1]
        row = np.count_nonzero(points.main_region[:last])
        assert example.score == pytest.approx(1 / (1 + np.exp(-row / 10)))
        np.testing.assert_array_equal(example.point_xy, view.points_xy[last])
        np.testing.assert_allclose(example.distances, [3, 1, 2, 4], rtol=1e-6)
        x, y = example.point_xy
        expected = np.array([x, y, x, y]) + example.stride * np.array([-3, -1, 2, 4])
        np.testing.assert_allclose(example.teacher_xyxy, expected, rtol=1e-6)
        left, top, right, bottom = example.target * example.stride
        np.testing.assert_allclose(example.box_xyxy, [x - left, y - top, x + right, y + bottom], rtol=1e-6)


def test_classes_without_a_name_are_shown_by_their_number(store: TargetStore) -> None:
    assert show_view(store, ViewKey(FEW, 0), None, ["cup"]).class_names == ["cup", "class 1", "class 2"]


def test_divergence_by_hand() -> None:
    teacher, other = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert kl(teacher, teacher) == 0
    assert kl(teacher, other) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert np.isfinite(kl(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
