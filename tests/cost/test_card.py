"""The card's arithmetic by hand, and a card of a small recipe from beginning to end."""

import json
from pathlib import Path

import pytest
from teacher_cases import DETECTOR, QUANTIZED, small_config, small_view_set

from pipeline.core.timing import break_even
from pipeline.cost.card import ViewStatistics, gather_statistics, make_card, render_card
from pipeline.cost.probe import STORED, CacheTimes, Probe, StepTimes
from pipeline.cost.timer import Repeats
from pipeline.detector.gfl import gfl_spec

HOUR = 3600


def statistics_of(folder: Path, images: int) -> ViewStatistics:
    view_set = small_view_set(folder)
    spec = gfl_spec(DETECTOR, view_set.conventions)
    return gather_statistics(view_set, small_config(QUANTIZED), spec, images, 2)


def always(seconds: float) -> Repeats:
    return Repeats.from_rounds([seconds])


def known_probe(statistics: ViewStatistics) -> Probe:
    """A teacher of 3 s, 0.5 s to write or read, and a step of 2 s an image, of views half as large."""
    cache = CacheTimes(
        views=4,
        batch_size=2,
        points_per_view=statistics.points_per_view / 2,
        pixels_per_view=statistics.pixels_per_view / 2,
        bare=always(1.5),
        stage=always(9.0),
        assign=9.0,
        write=0.25,
        read=0.25,
        busy={},
        bottleneck="teacher",
    )
    step = StepTimes(step=always(4.0), loaded=None, peak_bytes=None)
    return Probe(cache=cache, steps={"ld": {STORED: step}}, batch_sizes={"ld": 4})


def test_hours_by_hand(tmp_path: Path) -> None:
    """1,000 images with 2 views, 10 epochs."""
    found = statistics_of(tmp_path, 1000)
    card = make_card(found, known_probe(found), {"ld": 10}, 1)
    assert (found.images, found.views) == (1000, 2000)
    assert card["teacher_hours"] == pytest.approx(2000 * 3 / HOUR)
    assert card["write_hours"] == pytest.approx(2000 * 0.5 / HOUR)
    (cost,) = card["students"]
    assert cost["hours_from_store"] == pytest.approx(10 * 1000 * 2.5 / HOUR)
    assign_hours = 10 * 1000 * found.assign_seconds_per_view / HOUR
    assert cost["hours_in_the_loop"] == pytest.approx(10 * 1000 * 5 / HOUR + assign_hours)
    assert card["break_even_students"] == 1
    assert card["store_bytes"] == pytest.approx(2000 * found.store_bytes_per_view, rel=1e-6)
    assert json.loads(json.dumps(card))["statistics"]["views"] == 2000
    text = render_card("recipe", "here", {"device": "cpu"}, card)
    assert all(part in text for part in ("NOT ENOUGH", "ld", "break-even", "2,000"))


@pytest.mark.parametrize(
    ("store", "saved", "expected"),
    [(0.9, 1.0, 1), (1.0, 1.0, 2), (2.5, 1.0, 3), (1.0, 0.0, None), (1.0, -1.0, None)],
)
def test_break_even_is_the_first_number_of_students_for_which_the_store_costs_less(
    store: float, saved: float, expected: int | None
) -> None:
    assert break_even(store, saved) == expected
    if expected is not None:
        costs = [(n, store + 2.0 * n < (2.0 + saved) * n) for n in range(1, 9)]
        assert next(n for n, cheaper in costs if cheaper) == expected


def test_statistics_are_those_of_the_planned_views(tmp_path: Path) -> None:
    views = list(small_view_set(tmp_path))
    found = statistics_of(tmp_path, 7)
    assert (found.sampled_views, found.views) == (len(views), 14)
    assert found.points_per_view == pytest.approx(sum(len(view.points) for view in views) / len(views))
    assert found.boxes_per_view == pytest.approx(sum(len(view.labels) for view in views) / len(views))
