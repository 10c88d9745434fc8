"""The front page's picture: an object of a run, its four edges, and who says what about them."""

import pytest
from finished import call
from matplotlib.figure import Figure
from PIL import Image


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
