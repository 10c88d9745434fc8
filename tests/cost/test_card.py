"""The card's arithmetic by hand, and a card of a small recipe from beginning to end."""

import json
from pathlib import Path

import pytest
import torch
from teacher_cases import DETECTOR, QUANTIZED, small_plan
from training_cases import FULL, PLAIN, student

from pipeline.cost.card import StudentCost, break_even, make_card, render_card
from pipeline.cost.probe import Probe, probe_machine
from pipeline.cost.views import ViewStatistics, gather_statistics
from pipeline.teacher.config import CacheConfig

HOUR = 3600
STUDENTS = {"plain": student(PLAIN, epochs=10), "full": student(FULL, epochs=10)}


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> ViewStatistics:
    plan = small_plan(tmp_path_factory.mktemp("shapes"))
    return gather_statistics(plan, cache_config(plan), DETECTOR, 1000, lambda items, _total, _label: items)


def cache_config(plan) -> CacheConfig:
    return CacheConfig(
        views=plan.views,
        regions=plan.regions,
        precision=QUANTIZED,
        views_per_partition=4,
        batch_size=3,
        forward_precision="float32",
    )


def known_probe(statistics: ViewStatistics) -> Probe:
    """On a view of the mean size: a teacher of 3 s, a step of 2 s, and 0.5 s to write or read."""
    return Probe(
        device="cpu",
        threads=1,
        probed_hw=(1, round(statistics.pixels_per_view)),
        teacher_batch=1,
        student_batch=1,
        teacher_seconds=3.0,
        write_seconds=0.5,
        read_seconds=0.5,
        student_seconds={"plain": 2.0, "full": 2.0},
    )


def test_hours_by_hand(statistics: ViewStatistics) -> None:
    """1,000 images with 2 views, 10 epochs."""
    card = make_card("recipe", "here", statistics, known_probe(statistics), STUDENTS, free_bytes=10**9)
    assert (card.images, card.views) == (1000, 2000)
    assert card.teacher_hours == pytest.approx(2000 * 3 / HOUR, rel=1e-3)
    assert card.write_hours == pytest.approx(2000 * 0.5 / HOUR)
    for cost in card.students:
        assert cost.hours_from_store == pytest.approx(10 * 1000 * 2.5 / HOUR, rel=1e-3)
        plan_hours = 10 * 1000 * statistics.plan_seconds_per_view / HOUR
        assert cost.hours_in_the_loop == pytest.approx(10 * 1000 * 5 / HOUR + plan_hours, rel=1e-3)
    assert card.break_even_students == 1
    assert card.store_bytes == pytest.approx(2000 * statistics.store_bytes_per_view, rel=1e-6)


@pytest.mark.parametrize(
    ("store", "saved", "expected"),
    [(0.9, 1.0, 1), (1.0, 1.0, 2), (2.5, 1.0, 3), (1.0, 0.0, None), (1.0, -1.0, None)],
)
def test_break_even_is_the_first_number_of_students_for_which_the_store_costs_less(
    store: float, saved: float, expected: int | None
) -> None:
    cost = StudentCost(name="s", epochs=1, hours_from_store=2.0, hours_in_the_loop=2.0 + saved)
    assert break_even(store, (cost, cost)) == expected
    if expected is not None:
        costs = [(n, store + 2.0 * n < (2.0 + saved) * n) for n in range(1, 9)]
        assert next(n for n, cheaper in costs if cheaper) == expected


def test_statistics_are_those_of_the_planned_views(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = gather_statistics(plan, cache_config(plan), DETECTOR, 7, lambda items, _total, _label: items)
    views = list(plan)
    assert (found.sampled_views, found.views) == (len(views), 14)
    assert found.points_per_view == pytest.approx(sum(len(view.points) for view in views) / len(views))
    assert found.boxes_per_view == pytest.approx(sum(len(view.labels) for view in views) / len(views))
    nearest = min(views, key=lambda view: abs(len(view.points) - found.points_per_view))
    assert found.typical.key == nearest.key


def test_the_probe_measures_each_part_and_the_card_is_plain_json(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    found = gather_statistics(plan, cache_config(plan), DETECTOR, 7, lambda items, _total, _label: items)
    told: list[str] = []
    probe = probe_machine(
        DETECTOR,
        STUDENTS,
        cache_config(plan),
        plan.manifest,
        found.typical,
        device=torch.device("cpu"),
        folder=tmp_path / "probe",
        announce=told.append,
    )
    assert min(probe.teacher_seconds, probe.write_seconds, probe.read_seconds) > 0
    assert probe.student_seconds.keys() == STUDENTS.keys()
    assert len(told) == 3
    card = make_card("recipe", "here", found, probe, STUDENTS, free_bytes=1)
    assert json.loads(json.dumps(card.to_json()))["views"] == 14
    text = render_card(card)
    assert "NOT ENOUGH" in text
    assert all(name in text for name in ("plain", "full", "break-even"))
