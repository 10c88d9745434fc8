"""The curve: means over steps, a first bad step that is named exactly, and a state to go on from."""

import pytest
import torch
from training_cases import HERE

from pipeline.core.errors import PipelineError
from pipeline.training.curve import Curve, log_interval


def terms(value: float) -> dict[str, torch.Tensor]:
    return {"loss_cls": torch.tensor(value), "loss_bbox": torch.tensor(1.0)}


def add_all(curve: Curve, values: list[float]) -> None:
    for value in values:
        curve.add(terms(value))


def test_a_row_is_the_mean_of_its_steps() -> None:
    curve = Curve(2, HERE)
    add_all(curve, [1.0, 3.0, 5.0])
    assert curve.rows == {2: {"loss_cls": 2.0, "loss_bbox": 1.0}}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("step", [0, 4, 9])
def test_the_first_bad_step_is_named_when_its_row_is_complete(step: int, bad: float) -> None:
    curve = Curve(5, HERE)
    values = [bad if number >= step else 1.0 for number in range(10)]
    with pytest.raises(PipelineError, match=rf"^step {step}: expected a finite loss, but got loss_cls="):
        add_all(curve, values)


def test_settling_looks_at_steps_that_make_no_row_yet() -> None:
    curve = Curve(100, HERE)
    add_all(curve, [1.0, float("nan"), float("nan")])
    with pytest.raises(PipelineError, match=r"^step 1: .*loss_bbox=1"):
        curve.flush()


def test_a_curve_goes_on_from_its_state_wherever_it_was_cut() -> None:
    values = [0.1 * number for number in range(17)]
    straight = Curve(4, HERE)
    add_all(straight, values)
    for cut in range(len(values)):
        first, second = Curve(4, HERE), Curve(4, HERE)
        add_all(first, values[:cut])
        first.flush()
        second.restore(first.state())
        add_all(second, values[cut:])
        assert second.rows == straight.rows
        assert second.step == straight.step


def test_a_short_run_has_a_curve_too() -> None:
    assert [log_interval(steps) for steps in (1, 39, 40, 399, 400, 10**6)] == [1, 1, 2, 19, 20, 20]
