"""Training on a GPU: as on the CPU, in every precision, without waits, killed and gone on with."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from shared_runs import SCHEDULE
from teacher_cases import QUANTIZED
from torch import Tensor
from training_cases import FULL, HERE, PLAIN, loader_of, relative_difference, store_of, student, taught

from pipeline.losses.config import DistillationConfig
from pipeline.student.train import student_losses
from pipeline.training.checkpoints import Checkpoints, State
from pipeline.training.dataset import StepBatches
from pipeline.training.loop import Trained, build_for_training
from pipeline.training.processes import SINGLE_PROCESS, Placement
from pipeline.training.step import TrainStep

WEIGHTS_ERROR = {"exact": 1e-4, "float32": 1e-3, "bfloat16": 2e-2, "float16": 2e-2}
"""Norm of the difference of the trained weights to the CPU's, over their norm. ``exact`` is without TF32."""

Record = Callable[[str, object], None]


def train_here(
    folder: Path, device: torch.device, precision: str = "float32", workers: int = 0, **options: Checkpoints
) -> Trained:
    """Six steps with distillation."""
    config = student(FULL, **SCHEDULE, norm_eval=True, precision=precision)
    return taught(config, folder, replace(HERE, device=device, workers=workers), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def on_the_cpu(folder: Path) -> Trained:
    return train_here(folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def undisturbed(folder: Path, device: torch.device) -> Trained:
    """By one process that decodes itself."""
    return train_here(folder, device)


def test_weights_are_those_of_the_cpu(
    mode: str,
    precision: str,
    folder: Path,
    on_the_cpu: Trained,
    device: torch.device,
    record_property: Record,
) -> None:
    """They lie in channels last."""
    found = train_here(folder, device, precision)
    parameters = list(found.model.parameters())
    assert all(parameter.isfinite().all() for parameter in parameters)
    convolutions = [parameter for parameter in parameters if parameter.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)
    error = relative_difference(found.model.cpu(), on_the_cpu.model)
    record_property("weights_error", error)
    assert error <= WEIGHTS_ERROR[mode]


def require_equal(found: Trained, expected: Trained, device: torch.device, record: Record) -> None:
    """Nearly: sums by atomic additions have no fixed order on a GPU."""
    error = relative_difference(found.model, expected.model)
    record("weights_error", error)
    assert error <= (0 if device.type == "cpu" else WEIGHTS_ERROR["exact"])


def test_decoding_processes_and_pinned_memory_change_no_weight(
    folder: Path, undisturbed: Trained, device: torch.device, record_property: Record
) -> None:
    require_equal(train_here(folder, device, workers=2), undisturbed, device, record_property)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_of_a_loaded_batch_is_pinned(workers: int, folder: Path, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("only memory that is copied to a GPU is pinned")
    (batch,) = load(folder, FULL, replace(HERE, device=device, workers=workers))

    def look(tensor: Tensor) -> Tensor:
        assert tensor.is_pinned() or not tensor.numel()
        return tensor

    batch.each(look)


def load(folder: Path, loss: DistillationConfig, machine: Placement) -> StepBatches:
    """One step's batches in the host's memory."""
    steps = list(loader_of(student(loss, **SCHEDULE), folder, machine).epoch(0))
    return steps[0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("loss", "micro_batch"), [(PLAIN, None), (FULL, None), (FULL, 2)], ids=["plain", "ld", "ld2"]
)
def test_a_step_never_waits_for_the_gpu(
    loss: DistillationConfig,
    micro_batch: int | None,
    precision: str,
    folder: Path,
    device: torch.device,
    no_waits: Callable[[], AbstractContextManager[None]],
) -> None:
    config = student(loss, **SCHEDULE, norm_eval=True, precision=precision)
    machine = replace(HERE, device=device, micro_batch=micro_batch)
    conventions = store_of(folder, QUANTIZED).conventions
    model = build_for_training(config.detector, conventions, config.train, device).train()
    step = TrainStep(model, student_losses(config), config.train, machine)
    batches = load(folder, loss, machine)
    for _ in range(2):
        step.step(tuple(batch.to(device) for batch in batches), 0.0)
    with no_waits():
        step.step(tuple(batch.to(device) for batch in batches), 0.0)


class KilledCheckpoints(Checkpoints):
    """Kills its process once the first checkpoint is there."""

    def save(self, state: State) -> None:
        super().save(state)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_training_goes_on(
    folder: Path, tmp_path: Path, undisturbed: Trained, device: torch.device, record_property: Record
) -> None:
    options = {"checkpoints": KilledCheckpoints(folder=tmp_path)}
    process = get_context("spawn").Process(target=train_here, args=(folder, device), kwargs=options)
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    checkpoints = Checkpoints(folder=tmp_path)
    kept = checkpoints.load(SINGLE_PROCESS)
    assert kept is not None
    assert kept["curve"]["step"] > 0
    resumed = train_here(folder, device, checkpoints=checkpoints)
    require_equal(resumed, undisturbed, device, record_property)
