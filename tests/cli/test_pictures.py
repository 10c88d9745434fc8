"""Pictures show what the store and the students hold; every kind of view can be drawn."""

import filecmp
from pathlib import Path

import numpy as np
import pytest
import torch
from finished import call
from matplotlib.figure import Figure
from PIL import Image
from store_view_cases import CROWDED, EMPTY, FEW, WIDE, write_store_to_show

from pipeline.cli.pictures import choose_objects, draw_view
from pipeline.report.shown_views import GRAY, ShownView
from pipeline.store.reader.reader import TargetStore
from pipeline.views.types import ViewKey


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return write_store_to_show(tmp_path_factory.mktemp("store"), (8, 16, 32))


def test_few_of_many_objects_are_shown_from_large_to_small(store: TargetStore) -> None:
    view = ShownView(store, ViewKey(CROWDED, 0))
    areas = (view.boxes[:, 2:] - view.boxes[:, :2]).prod(axis=1)
    seen, shown = np.unique(view.main)[1:], [example.box for example in choose_objects(view).values()]
    assert len(shown) == 4
    assert {areas[seen].min(), areas[seen].max()} <= set(areas[shown].tolist())
    assert (np.diff(view.boxes[shown, 0]) >= 0).all()


def share_of_color(picture: Path, color: tuple[int, ...]) -> float:
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert 500 < image.width < 2100
        assert 200 < image.height < 3000
        return float((np.asarray(image.convert("RGB")) == color).all(axis=-1).mean())


@pytest.mark.parametrize("number", [EMPTY, FEW, CROWDED, WIDE])
def test_every_kind_of_view_can_be_drawn_on_gray_to_the_same_bytes(
    store: TargetStore, tmp_path: Path, number: int
) -> None:
    for name in ("first.png", "second.png"):
        draw_view(ShownView(store, ViewKey(number, 0)), tmp_path / name)
    assert filecmp.cmp(tmp_path / "first.png", tmp_path / "second.png", shallow=False)
    assert share_of_color(tmp_path / "first.png", (GRAY,) * 3) > 0.01


def test_the_pixels_of_a_view_are_in_its_picture_whatever_its_levels(tmp_path: Path) -> None:
    store, color = write_store_to_show(tmp_path, (8, 16, 32, 64, 128)), (10, 200, 60)
    size_hw = store.view(ViewKey(EMPTY, 0)).geometry.resized_hw
    pixels = torch.tensor(color, dtype=torch.uint8)[:, None, None].expand(3, *size_hw)
    draw_view(ShownView(store, ViewKey(EMPTY, 0), pixels), tmp_path / "view.png")
    assert share_of_color(tmp_path / "view.png", color) > 0.05


@pytest.mark.usefixtures("own_project")
def test_the_picture_shows_an_object_and_names_teacher_and_students(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **kw: (drawn.append(self), save(self, *a, **kw)))
    assert call("ldp picture --output edges.png").code == 0
    (figure,) = drawn
    titles = [axes.get_title(loc="left") for axes in figure.axes[1:]]
    assert [title.partition(":")[0] for title in titles] == ["left", "top", "right", "bottom"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["teacher, from the store", "plain", "ld"]
    assert [len(axes.lines) for axes in figure.axes[1:]] == [3] * 4, "two students and the truth"
    with Image.open("edges.png") as image:
        assert image.width > 1000
