"""The learning rate, and the weight of a distillation term by epoch."""

import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from training_cases import FULL, TRAIN, student, taught

from pipeline.student.config import SchedulesConfig, WeightSchedule
from pipeline.training.config import TrainConfig
from pipeline.training.loop import rate_factor


def schedule(**changes: Any) -> TrainConfig:
    values = {"epochs": 12, "warmup_steps": 500, "decay": "step", "milestones": (8, 11)}
    return replace(TRAIN, **(values | changes))


def test_cosine_falls_from_one_to_zero() -> None:
    cosine = schedule(decay="cosine", milestones=(), warmup_steps=0)
    assert [rate_factor(step, 10, cosine) for step in (0, 60, 120)] == pytest.approx([1.0, 0.5, 0.0])


def mmcv_rates(
    steps_per_epoch: int, epochs: int, milestones: list[int], *, rate: float, warmup: int, ratio: float
) -> list[float]:
    """Rates of every iteration as mmcv's ``StepLrUpdaterHook`` sets them, hook by hook.

    ``before_train_epoch`` sets the epoch's rate; ``before_train_iter`` overrides it while it warms up, and
    puts it back in the iteration in which the warm-up is over.
    """
    rates: list[float] = []
    for epoch in range(epochs):
        regular = rate * 0.1 ** sum(epoch >= milestone for milestone in milestones)
        current = regular
        for inner in range(steps_per_epoch):
            iteration = epoch * steps_per_epoch + inner
            if iteration == warmup:
                current = regular
            elif iteration < warmup:
                k = (1 - iteration / warmup) * (1 - ratio)
                current = regular * (1 - k)
            rates.append(current)
    return rates


@pytest.mark.parametrize(
    ("epochs", "milestones", "per_epoch"),
    [(12, [8, 11], 100), (24, [16, 22], 60), (12, [1, 2], 300)],
    ids=["1x", "2x", "warm-up beyond a milestone"],
)
def test_every_iteration_has_the_rate_that_mmcv_gives_it(
    epochs: int, milestones: list[int], per_epoch: int
) -> None:
    config = schedule(epochs=epochs, milestones=milestones)
    expected = mmcv_rates(per_epoch, epochs, milestones, rate=0.01, warmup=500, ratio=0.001)
    rates = [0.01 * rate_factor(step, per_epoch, config) for step in range(epochs * per_epoch)]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_a_terms_weight_falls_as_in_yolov6() -> None:
    """Its repository's ``loss_distill.py``, in its own words."""
    for epoch_num in range(4):
        decay = ((1 - math.cos(epoch_num * math.pi / 4)) / 2) * (0.01 - 1) + 1
        assert WeightSchedule(end=0.01).factor(epoch_num, 4) == pytest.approx(decay)


def test_a_term_counts_from_an_epoch_on_and_then_falls_in_what_is_left() -> None:
    late = WeightSchedule(start=2, end=0.5)
    assert [late.factor(epoch, 4) for epoch in range(4)] == pytest.approx([0, 0, 1, 0.75])
    assert [WeightSchedule().factor(epoch, 4) for epoch in range(4)] == [1.0] * 4


def test_only_the_scheduled_term_is_trained_with_another_weight_and_only_by_its_schedule(
    stores: Path,
) -> None:
    """The first epoch's rows say which terms are scaled: the weights are equal until its first step."""
    constant, late = student(FULL, epochs=2), WeightSchedule(start=1)
    scheduled = replace(constant, schedules=SchedulesConfig(ld=late, kd=late))
    one, other = (list(taught(config, stores).curve.values()) for config in (constant, scheduled))
    per_epoch = len(one) // 2
    assert other[0] == {**one[0], "loss_ld": 0.0, "loss_kd": 0.0}
    assert all(row["loss_ld"] == 0 for row in other[:per_epoch])
    assert all(row["loss_ld"] > 0 and row["loss_kd"] > 0 for row in other[per_epoch:])
