"""The front page's picture: an object of a run, its four edges, and who says what about them."""

import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_cases import LD_LOSS, NO_LOSS, student, write_project

from pipeline.cli.picture import picture_command

ROOT = Path(__file__).parents[2]


def test_the_picture_shows_an_object_and_names_teacher_and_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    students = {"plain": student(NO_LOSS), "ld": student(LD_LOSS)}
    write_project(tmp_path / "runs/shapes", students, {"AP": 1.0, "per_class": {}})
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **kw: (drawn.append(self), save(self, *a, **kw)))
    picture_command.run(Namespace(recipe="params.yaml", output=tmp_path / "edges.png"))
    (figure,) = drawn
    titles = [axes.get_title(loc="left") for axes in figure.axes[1:]]
    assert [title.partition(":")[0] for title in titles] == ["left", "top", "right", "bottom"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["teacher, from the store", "plain", "ld"]
    assert [len(axes.lines) for axes in figure.axes[1:]] == [3] * 4, "two students and the truth"
    with Image.open(tmp_path / "edges.png") as image:
        assert image.width > 1000
    assert (tmp_path / "edges.png").stat().st_size <= 120_000
