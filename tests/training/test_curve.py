"""The curve: means over steps, and a first bad step that is named exactly."""

import pytest
import torch
from training_cases import HERE

from pipeline.core.errors import PipelineError
from pipeline.training.curves import Curve, log_interval


def add_all(curve: Curve, values: list[float]) -> None:
    for value in values:
        curve.add({"loss_cls": torch.tensor(value), "loss_bbox": torch.tensor(1.0)})


def test_a_row_is_the_mean_of_its_steps() -> None:
    curve = Curve(2, HERE)
    add_all(curve, [1.0, 3.0, 5.0])
    assert curve.rows == {2: {"loss_cls": 2.0, "loss_bbox": 1.0}}


@pytest.mark.parametrize(("step", "bad"), [(0, "nan"), (4, "inf"), (9, "-inf")])
def test_the_first_bad_step_is_named_when_its_row_is_complete_or_flushed(step: int, bad: str) -> None:
    values = [float(bad) if number >= step else 1.0 for number in range(10)]
    message = rf"^step {step}: expected a finite loss, but got loss_cls=.*loss_bbox=1"
    with pytest.raises(PipelineError, match=message):
        add_all(Curve(5, HERE), values)
    unfinished = Curve(100, HERE)
    add_all(unfinished, values)
    with pytest.raises(PipelineError, match=message):
        unfinished.flush()


def test_a_short_run_has_a_curve_too() -> None:
    assert [log_interval(steps) for steps in (1, 39, 40, 399, 400, 10**6)] == [1, 1, 2, 19, 20, 20]
