import numpy as np
import pytest
import torch

from pipeline.report.lessons import LESSONS, Lesson, choose_lessons, kl
from pipeline.views.types import ViewKey


def lesson(image_id: int, widths: tuple[int, int, int, int]) -> Lesson:
    """An object whose edges are uniform over so many bins."""
    teacher = np.zeros((4, 17))
    for edge, width in enumerate(widths):
        teacher[edge, :width] = 1 / width
    return Lesson(
        key=ViewKey(image_id, 0),
        box_xyxy=np.zeros(4, np.float32),
        label=0,
        point_xy=np.zeros(2, np.float32),
        stride=8.0,
        target=np.ones(4, np.float32),
        teacher=teacher,
        students={},
        pixels=torch.zeros(3, 1, 1, dtype=torch.uint8),
    )


def test_lessons_go_from_sharp_to_ambiguous() -> None:
    lessons = [lesson(number, (1 + number % 5, 2, 1 + number % 7, 3)) for number in range(30)]
    lessons += [lesson(100, (1, 1, 1, 1)), lesson(101, (1, 1, 1, 17)), lesson(102, (17, 17, 17, 17))]
    chosen = choose_lessons(lessons)
    assert len(chosen) == LESSONS
    assert [int(row.key.image_id) for row in (chosen[0], chosen[-1])] == [100, 102]
    assert 101 in {row.key.image_id for row in chosen}
    means = [row.entropy.mean() for row in chosen]
    assert means == sorted(means)


def test_view_gives_one_lesson_at_most() -> None:
    chosen = choose_lessons([lesson(1, (1, 2, 3, 4)), lesson(1, (4, 4, 4, 4)), lesson(2, (2, 2, 2, 2))])
    assert sorted(row.key.image_id for row in chosen) == [1, 2]
    assert choose_lessons([]) == []


def test_divergence_by_hand() -> None:
    teacher, other = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert kl(teacher, teacher) == 0
    assert kl(teacher, other) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3))
    assert np.isfinite(kl(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
