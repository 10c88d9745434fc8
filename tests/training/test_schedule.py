"""The learning rate, by hand."""

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.training.schedule import ScheduleConfig, build_optimizer, rate_factor


def schedule(**changes) -> ScheduleConfig:
    values = {
        "epochs": 12,
        "batch_size": 16,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 1e-4,
        "warmup_steps": 500,
        "decay": "step",
        "milestones": (8, 11),
        "max_grad_norm": None,
    }
    return ScheduleConfig(**(values | changes))


def test_the_published_1x_schedule() -> None:
    steps = 1000
    assert rate_factor(0, steps, schedule()) == pytest.approx(0.001)
    assert rate_factor(250, steps, schedule()) == pytest.approx(0.001 + 0.999 / 2)
    assert rate_factor(500, steps, schedule()) == 1.0
    assert rate_factor(8 * steps - 1, steps, schedule()) == 1.0
    assert rate_factor(8 * steps, steps, schedule()) == pytest.approx(0.1)
    assert rate_factor(11 * steps, steps, schedule()) == pytest.approx(0.01)


def test_cosine_falls_from_one_to_zero() -> None:
    cosine = schedule(decay="cosine", milestones=(), warmup_steps=0)
    assert rate_factor(0, 10, cosine) == 1.0
    assert rate_factor(60, 10, cosine) == pytest.approx(0.5)
    assert rate_factor(120, 10, cosine) == pytest.approx(0.0)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    optimizer = build_optimizer(model, schedule())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    assert isinstance(optimizer, torch.optim.SGD)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch_size": 0}, {"milestones": (12,)}, {"learning_rate": 0}]
)
def test_impossible_schedules_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        schedule(**change)
