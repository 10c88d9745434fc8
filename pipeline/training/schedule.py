"""Optimiser and learning-rate schedule."""

import math
from typing import Any

import torch
from torch import nn

from pipeline.training.config import TrainConfig

STEP_GAMMA = 0.1
"""Factor at each milestone of the ``step`` decay (mmdetection's schedules)."""

SGD_MOMENTUM = 0.9
"""The momentum of every published recipe."""

WARMUP_START = 0.001
"""Factor of the first warm-up step (``warmup_ratio`` of the reference)."""


def rate_factor(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """Learning rate of a step as a fraction of the base rate: linear warm-up, then the decay."""
    warmup = 1.0
    if step < config.warmup_steps:
        warmup = WARMUP_START + (1 - WARMUP_START) * step / config.warmup_steps
    if config.decay == "cosine":
        return warmup * (1 + math.cos(math.pi * step / (config.epochs * steps_per_epoch))) / 2
    passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    return warmup * STEP_GAMMA**passed


def build_optimizer(model: nn.Module, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the parameters that get gradients.

    On a GPU its update is one kernel; on the CPU that would change last bits.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if device.type == "cuda":
        options["fused"] = True
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=SGD_MOMENTUM, **options)
    return torch.optim.AdamW(parameters, **options)
