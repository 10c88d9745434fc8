"""The weight of a distillation term by epoch."""

import math
from pathlib import Path

import msgspec
import pytest
from training_cases import FULL, student, taught

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError
from pipeline.student.config import SchedulesConfig, StudentConfig, WeightSchedule

EPOCHS = 4


def test_a_weight_falls_as_in_yolov6() -> None:
    """Its repository's ``loss_distill.py``, in its own words."""
    schedule = WeightSchedule(end=0.01)
    for epoch_num in range(EPOCHS):
        decay = ((1 - math.cos(epoch_num * math.pi / EPOCHS)) / 2) * (0.01 - 1) + 1
        assert schedule.factor(epoch_num, EPOCHS) == pytest.approx(decay)


def test_a_term_counts_from_an_epoch_on_and_then_falls_in_what_is_left() -> None:
    late = WeightSchedule(start=2, end=0.5)
    assert [late.factor(epoch, EPOCHS) for epoch in range(EPOCHS)] == pytest.approx([0, 0, 1, 0.75])
    assert [WeightSchedule().factor(epoch, EPOCHS) for epoch in range(EPOCHS)] == [1.0] * EPOCHS


def test_only_the_scheduled_term_is_trained_with_another_weight_and_only_by_its_schedule(
    stores: Path,
) -> None:
    """The first epoch's rows say which terms are scaled: the weights are equal until its first step."""
    constant = student(FULL, epochs=2)
    scheduled = msgspec.structs.replace(
        constant, schedules=SchedulesConfig(ld=WeightSchedule(start=1), kd=WeightSchedule(start=1))
    )
    one, other = (list(taught(config, stores).curve.values()) for config in (constant, scheduled))
    per_epoch = len(one) // 2
    assert other[0] == {**one[0], "loss_ld": 0.0, "loss_kd": 0.0}
    assert all(row["loss_ld"] == 0 for row in other[:per_epoch])
    assert all(row["loss_ld"] > 0 and row["loss_kd"] > 0 for row in other[per_epoch:])


def test_a_term_that_would_never_count_is_refused() -> None:
    values = msgspec.to_builtins(student(FULL, epochs=EPOCHS))
    message = r"schedules\.kd\.start: expected less than 4 epochs, but got 4"
    with pytest.raises(ConfigError, match=message):
        structure(StudentConfig, {**values, "schedules": {"kd": {"start": EPOCHS}}}, "student")
