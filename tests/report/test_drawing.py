"""What is drawn over pixels: labels where there is room, points and cells where the store has them."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

from pipeline.report.drawing import count_regions, draw_crop, draw_labels, draw_pixels, draw_regions, opacity
from pipeline.report.figures import draw_picture
from pipeline.report.shown_views import ShownView, edge_examples
from pipeline.views.types import NOT_MAIN


def labels_at(boxes: list[tuple[float, float, float, float]], text: str, scale: float) -> list[Bbox]:
    """Where the labels of boxes of a picture of 100 x 100 px are drawn."""
    axes, count = Figure().subplots(), len(boxes)
    draw_pixels(axes, torch.zeros(3, 100, 100, dtype=torch.uint8))
    veil = len(axes.patches)
    draw_labels(axes, np.array(boxes, np.float64), ["red"] * count, [text] * count, scale)
    assert {label.get_text() for label in axes.texts} <= {text}
    assert len(axes.texts) == len(axes.patches) - veil
    return [patch.get_bbox() for patch in axes.patches[veil:]]


def test_labels_do_not_overlap_and_stay_inside() -> None:
    boxes = [(x, y, x + 60.0, y + 50.0) for x in (0.0, 5.0, 40.0) for y in (0.0, 3.0, 50.0)]
    places = labels_at(boxes, "0.50", 1.0)
    assert len(places) > 3
    for number, place in enumerate(places):
        assert 0 <= place.min.min() <= place.max.max() <= 100
        assert not place.count_overlaps(places[:number])
    assert labels_at([(0, 0, 10, 10)], "a very long name of a class", 1.0) == []
    (large,), (small,) = (labels_at([(0, 50, 60, 90)], "0.50", scale) for scale in (1.0, 2.0))
    assert large.size == pytest.approx(2 * small.size)


def test_points_and_cells_are_where_the_store_has_them(view: ShownView) -> None:
    axes, first = Figure().subplots(), view.level == 0
    draw_regions(axes, 1.0, view, 0)
    (cells,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    (dots,) = (c for c in axes.collections if isinstance(c, PathCollection))
    valuable = view.points_xy[first & (view.valuable_weight > 0)]
    centers = [path.vertices[:4].mean(axis=0) for path in cells.get_paths()]
    np.testing.assert_allclose(centers, valuable, atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(dots.get_offsets()), view.points_xy[first & (view.main != NOT_MAIN)]
    )
    assert count_regions(view, 0) == (len(dots.get_offsets()), len(centers))
    assert 0 < opacity(0.01) < opacity(0.3) < opacity(0.5) == opacity(1.0) < 1


def test_a_crop_holds_its_box_and_stays_in_the_picture(view: ShownView) -> None:
    for example in edge_examples(view):
        axes = Figure().subplots()
        draw_crop(axes, example)
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        assert ([left, top] <= example.box_xyxy[:2] + 1e-6).all()
        assert ([right, bottom] >= example.box_xyxy[2:] - 1e-6).all()
        assert min(left, top) >= -1e-6


def test_a_picture_is_shown_in_its_ratio_and_embedded(view: ShownView) -> None:
    picture = draw_picture((80, 96), 240, "<a>", lambda axes, _scale: draw_pixels(axes, view.pixels))
    found = re.fullmatch(r'<img src="data:image/webp;base64,(.*)" alt="&lt;a&gt;" (.*)>', picture)
    assert found is not None
    assert found[2] == 'width="240" height="200"'
    assert Image.open(io.BytesIO(base64.b64decode(found[1]))).size == (480, 400)
