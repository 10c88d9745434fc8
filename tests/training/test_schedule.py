"""The learning rate, by hand."""

from typing import Any

import pytest
import torch
from msgspec import to_builtins
from torch import nn
from training_cases import TRAIN

from pipeline.core.config import structure
from pipeline.core.errors import ConfigError
from pipeline.training.config import TrainConfig
from pipeline.training.loop import rate_factor
from pipeline.training.step import build_optimizer


def schedule(**changes: Any) -> TrainConfig:
    values = {**to_builtins(TRAIN), "epochs": 12, "warmup_steps": 500, "decay": "step", "milestones": [8, 11]}
    return structure(TrainConfig, values | changes, "train")


def test_cosine_falls_from_one_to_zero() -> None:
    cosine = schedule(decay="cosine", milestones=[], warmup_steps=0)
    assert [rate_factor(step, 10, cosine) for step in (0, 60, 120)] == pytest.approx([1.0, 0.5, 0.0])


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(requires_grad=False)
    optimizer = build_optimizer(model, schedule(), torch.device("cpu"))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    assert isinstance(optimizer, torch.optim.SGD)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch_size": 0}, {"milestones": [12]}, {"learning_rate": 0}]
)
def test_impossible_schedules_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        schedule(**change)


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
