"""The card's arithmetic by hand."""

import pytest

from pipeline.cli.costs import Card
from pipeline.core.progress import break_even

HOUR = 3600


def test_hours_by_hand() -> None:
    """1,000 images with 2 views; one student of 10 epochs, whose step takes 2 s an image."""
    card = Card(
        images=1000,
        views=2000,
        points_per_view=900.0,
        bytes_per_view=5000.0,
        assign=0.1,
        teacher=3.0,
        write=0.5,
        read=0.5,
        students={"ld": (10, 2.0)},
    )
    from_store, in_the_loop = card.student_hours("ld")
    assert from_store == pytest.approx(10 * 1000 * 2.5 / HOUR)
    assert in_the_loop == pytest.approx(10 * 1000 * 5.1 / HOUR)
    assert card.break_even() == 1
    text = card.render()
    assert all(part in text for part in ("2,000", "10.0 MB", "1.67 h", "6.94 h", "14 h", "break-even"))


@pytest.mark.parametrize(
    ("store", "saved", "expected"),
    [(0.9, 1.0, 1), (1.0, 1.0, 2), (2.5, 1.0, 3), (1.0, 0.0, None), (1.0, -1.0, None)],
)
def test_break_even_is_the_first_number_of_students_for_which_the_store_costs_less(
    store: float, saved: float, expected: int | None
) -> None:
    assert break_even(store, saved) == expected
