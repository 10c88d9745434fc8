"""Optimiser and learning-rate schedule."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from pipeline.core.errors import ConfigError

STEP_GAMMA = 0.1
"""Factor at each milestone of the ``step`` decay (mmdetection's schedules)."""

SGD_MOMENTUM = 0.9
"""Of every published recipe."""

WARMUP_START = 0.001
"""Factor of the first warm-up step (``warmup_ratio`` of the reference)."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How long and how fast a detector is trained."""

    epochs: int
    batch_size: int
    optimizer: Literal["sgd", "adamw"]
    """``sgd`` with momentum 0.9 as in the paper; ``adamw`` trains faster from random weights."""
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    decay: Literal["step", "cosine"]
    milestones: tuple[int, ...]
    """Epochs after which the rate falls tenfold (``step`` only)."""
    max_grad_norm: float | None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: expected more than 0, but got {getattr(self, name)}")
        for name in ("weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected 0 or more, but got {getattr(self, name)}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ConfigError(f"max_grad_norm: expected more than 0, or null, but got {self.max_grad_norm}")
        if any(not 0 < milestone < self.epochs for milestone in self.milestones):
            raise ConfigError(f"milestones: expected epochs before {self.epochs}, but got {self.milestones}")


def rate_factor(step: int, steps_per_epoch: int, config: ScheduleConfig) -> float:
    """Learning rate of a step as a fraction of the base rate: linear warm-up, then the decay."""
    warmup = 1.0
    if step < config.warmup_steps:
        warmup = WARMUP_START + (1 - WARMUP_START) * step / config.warmup_steps
    if config.decay == "cosine":
        return warmup * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch))) / 2
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return warmup * STEP_GAMMA**passed


def build_optimizer(model: nn.Module, config: ScheduleConfig) -> torch.optim.Optimizer:
    """The optimizer over the parameters that get gradients."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match config.optimizer:
        case "sgd":
            return torch.optim.SGD(
                parameters, config.learning_rate, momentum=SGD_MOMENTUM, weight_decay=config.weight_decay
            )
        case "adamw":
            return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
