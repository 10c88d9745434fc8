"""Examples go from sharp to ambiguous; what they say of an object is what the store holds of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.report.shown_views import ShownView, choose_examples, edge_examples, mean_kl, spread
from pipeline.views.types import NOT_MAIN


def view_of(*objects: tuple[int, ...], box: tuple[int, ...] = (32, 32, 64, 64)) -> Any:
    """A view of objects whose edges are uniform over so many bins, seen from a point in the middle."""
    count, bins = len(objects), np.arange(17)
    return SimpleNamespace(
        main=np.arange(count),
        labels=np.zeros(count, np.int64),
        cls_logits=np.zeros((count, 1)),
        class_names=["cup"],
        level=np.zeros(count, np.int64),
        stride=np.full(count, 8.0),
        boxes=np.tile(np.array(box), (count, 1)),
        points_xy=np.full((count, 2), 48.0),
        edge_logits=np.where(bins < np.array(objects)[..., None], 0.0, -np.inf),
        students={},
    )


def test_every_view_gives_its_clear_object_of_the_largest_contrast_from_sharp_to_ambiguous() -> None:
    sharp, ambiguous, contrast = (1, 1, 1, 1), (17, 17, 17, 17), (1, 1, 1, 17)
    small, far = view_of(contrast, box=(46, 46, 50, 50)), view_of(contrast, box=(-100, 32, 64, 64))
    chosen = choose_examples(
        [view_of(ambiguous), small, far, view_of((2, 2, 2, 2), contrast), view_of(sharp)]
    )
    bins = np.exp([example.entropy for example in chosen])
    np.testing.assert_allclose(bins, [sharp, contrast, ambiguous])
    assert [example.box for example in chosen] == [0, 1, 0]


def test_an_object_is_shown_at_the_point_where_the_teacher_is_surest(view: ShownView) -> None:
    main = view.main != NOT_MAIN
    examples = edge_examples(view)
    assert {example.box for example in examples} == set(view.main[main].tolist())
    for example in examples:
        # Class logits grow along the main-region points: the last one of the box is the surest.
        last = np.flatnonzero(view.main == example.box)[-1]
        row = np.count_nonzero(main[:last])
        assert example.score == pytest.approx(1 / (1 + np.exp(-row / 10)))
        assert example.class_name == ("cat", "dog", "cow")[view.labels[example.box]]
        np.testing.assert_array_equal(example.point_xy, view.points_xy[last])
        np.testing.assert_allclose(example.distances, [3, 1, 2, 4], rtol=1e-6)
        x, y = example.point_xy
        expected = np.array([x, y, x, y]) + example.stride * np.array([-3, -1, 2, 4])
        np.testing.assert_allclose(example.teacher_xyxy, expected, rtol=1e-6)
        left, top, right, bottom = example.target * example.stride
        np.testing.assert_allclose(example.box_xyxy, [x - left, y - top, x + right, y + bottom], rtol=1e-6)


def test_divergence_by_hand() -> None:
    teacher, student = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    logits = {"ld": torch.from_numpy(np.log(np.stack([[student] * 4, [teacher] * 4])))}
    codes = np.log(np.stack([[teacher] * 4] * 2))
    view: Any = SimpleNamespace(edge_logits=codes, students=logits, main=np.array([0, NOT_MAIN]))
    main, valuable = mean_kl([view, view], "ld")
    assert main == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert valuable == pytest.approx(0)
    view.main[:] = 0
    assert mean_kl([view], "ld")[1] is None


def test_items_are_spread_from_the_first_to_the_last() -> None:
    assert spread(range(9), 3) == [0, 4, 8]
    assert spread(range(2), 3) == [0, 1]
    assert spread([], 3) == []
