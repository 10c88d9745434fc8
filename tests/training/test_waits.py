"""The host never waits for the device in a step: it prepares the next while the device computes."""

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from pretended_device import DEVICE, pinned, pretended_device
from teacher_cases import DETECTOR, QUANTIZED
from training_cases import FULL, HERE, PLAIN, loader_of, store_of, student

from pipeline.losses.config import DistillationConfig
from pipeline.student import targets
from pipeline.student.train import student_losses
from pipeline.training import step as step_module
from pipeline.training.curves import Curve
from pipeline.training.dataset import StepBatches
from pipeline.training.loop import build_for_training
from pipeline.training.step import TrainStep
from pipeline.views import images


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What has made the host wait for the pretended device."""
    monkeypatch.setattr(step_module, "autocast", lambda *_: nullcontext())
    # A test that has used torch's own device of this name has left constants on it.
    for constants in (targets._basis, images._mean_std):
        constants.cache_clear()
    with pretended_device() as waits:
        yield waits


def load(stores: Path, loss: DistillationConfig, micro_batch: int | None = None) -> StepBatches:
    """A step's batches as the loader leaves them for a GPU."""
    machine = dataclasses.replace(HERE, micro_batch=micro_batch)
    step = next(loader_of(student(loss, batch_size=4), stores, machine).epoch(0))
    return tuple(batch.each(pinned) for batch in step)


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("loss", [PLAIN, FULL], ids=["plain", "ld"])
def test_a_step_waits_for_nothing_and_copies_nothing_from_pageable_memory(
    loss: DistillationConfig, micro_batch: int | None, stores: Path, waits: list[str]
) -> None:
    optimizer, clipped = ("adamw", 10.0) if micro_batch else ("sgd", None)
    config = student(loss, batch_size=4, norm_eval=True, max_grad_norm=clipped, optimizer=optimizer)
    batches = load(stores, loss, micro_batch)
    machine = dataclasses.replace(HERE, device=DEVICE, micro_batch=micro_batch)
    model = build_for_training(DETECTOR, store_of(stores, QUANTIZED).conventions, config.train, DEVICE)
    step, curve = TrainStep(model, student_losses(config), config.train, machine), Curve(10, machine)
    for _ in range(2):  # the first copies constants, once for all
        waits.clear()
        terms = step.step(tuple(batch.to(DEVICE) for batch in batches), 0.01)
        curve.add(terms)
    assert len(terms) == (6 if loss.reads_teacher else 3)
    assert not waits


def test_a_wait_is_noticed(waits: list[str]) -> None:
    values = pinned(torch.arange(4.0)).to(DEVICE, non_blocking=True)
    assert not waits
    for wait in (
        lambda: values.sum().item(),
        lambda: values.tolist(),
        lambda: values.cpu(),
        lambda: values[values > 1],
        lambda: values[torch.tensor([1])],
        lambda: torch.nonzero(values),
        lambda: torch.tensor([1.0], device=DEVICE),
        lambda: torch.arange(4.0).to(DEVICE),
        lambda: torch.arange(4.0).to(DEVICE, non_blocking=True),
        lambda: torch.arange(3, device=DEVICE).repeat_interleave(torch.arange(3, device=DEVICE)),
    ):
        waits.clear()
        wait()
        assert len(waits) == 1, waits
    with pytest.raises(AssertionError, match="mixes"):
        values + torch.arange(4.0)


@pytest.mark.usefixtures("waits")
def test_normalizing_on_the_device_gives_what_the_host_gives(stores: Path) -> None:
    (batch,) = load(stores, PLAIN)
    conventions = store_of(stores, QUANTIZED).conventions
    on_host, on_device = (each.images(conventions.preprocessing) for each in (batch, batch.to(DEVICE)))
    assert torch.equal(on_device.held, on_host)
    assert on_device.stride() == on_host.stride()
