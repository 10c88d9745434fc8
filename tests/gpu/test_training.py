"""Training on a GPU: as on the CPU, in every precision, without waits, killed and gone on with."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import fields, is_dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from teacher_cases import QUANTIZED
from torch import Tensor
from training_cases import (
    FULL,
    HERE,
    PLAIN,
    loader_of,
    relative_difference,
    store_of,
    student,
    taught,
)

from pipeline.losses.config import DistillationConfig
from pipeline.student.train import student_losses
from pipeline.training.checkpoints import Checkpoints, State
from pipeline.training.dataset import StepBatches
from pipeline.training.loop import Trained, build_for_training
from pipeline.training.processes import SINGLE_PROCESS
from pipeline.training.step import TrainStep

WEIGHTS_ERROR = {"exact": 1e-4, "float32": 1e-3, "bfloat16": 2e-2, "float16": 2e-2}
"""Norm of the difference of the trained weights to the CPU's, over their norm. ``exact`` is without TF32."""

SCHEDULE = {"epochs": 3, "batch_size": 4, "warmup_steps": 2}
"""Six steps."""

PATIENCE_S = 120.0

Record = Callable[[str, object], None]
Waits = Callable[[], AbstractContextManager[list[str]]]


def train_here(folder: Path, device: torch.device, precision: str = "float32", workers: int = 0) -> Trained:
    """Six steps with distillation."""
    config = student(FULL, **SCHEDULE, norm_eval=True, precision=precision)
    machine = replace(HERE, device=device, workers=workers)
    return taught(config, folder, machine)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def on_the_cpu(folder: Path) -> Trained:
    return train_here(folder, torch.device("cpu"))


@pytest.mark.parametrize("mode", ["exact", "float32", "bfloat16", "float16"])
def test_weights_are_those_of_the_cpu(
    mode: str,
    folder: Path,
    on_the_cpu: Trained,
    device: torch.device,
    request: pytest.FixtureRequest,
    record_property: Record,
) -> None:
    if mode == "exact":
        request.getfixturevalue("exact_float32")
    found = train_here(folder, device, "float32" if mode == "exact" else mode)
    assert all(parameter.isfinite().all() for parameter in found.model.parameters())
    error = relative_difference(found.model.cpu(), on_the_cpu.model)
    record_property("weights_error", error)
    assert error <= WEIGHTS_ERROR[mode]


def test_decoding_processes_and_pinned_memory_change_no_weight(
    folder: Path, device: torch.device, record_property: Record
) -> None:
    alone, fed = train_here(folder, device), train_here(folder, device, workers=2)
    error = relative_difference(fed.model, alone.model)
    record_property("weights_error", error)
    # Sums by atomic additions have no fixed order on a GPU.
    assert error <= (0 if device.type == "cpu" else WEIGHTS_ERROR["exact"])


@pytest.mark.parametrize("workers", [0, 2])
def test_all_of_a_loaded_batch_is_pinned(workers: int, folder: Path, device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("only memory that is copied to a GPU is pinned")
    batches = load(folder, device, FULL, workers)
    assert all(tensor.is_pinned() for tensor in tensors(batches[0]) if tensor.numel())


def load(
    folder: Path, device: torch.device, loss: DistillationConfig, workers: int = 0, parts: int = 1
) -> StepBatches:
    """One step's batches in the host's memory."""
    micro = SCHEDULE["batch_size"] // parts if parts > 1 else None
    machine = replace(HERE, device=device, workers=workers, micro_batch=micro)
    return next(iter(list(loader_of(student(loss, **SCHEDULE), folder, machine).epoch(0))))


def tensors(value: object) -> Iterator[Tensor]:
    """All tensors of nested dataclasses and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors(item)
    elif is_dataclass(value):
        for each in fields(value):
            yield from tensors(getattr(value, each.name))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("loss", "parts"), [(PLAIN, 1), (FULL, 1), (FULL, 2)], ids=["plain", "ld", "ld2"])
def test_a_step_never_waits_for_the_gpu(
    loss: DistillationConfig,
    parts: int,
    precision: str,
    folder: Path,
    device: torch.device,
    waits: Waits,
    record_property: Record,
) -> None:
    config = student(loss, **SCHEDULE, norm_eval=True, precision=precision)
    machine = replace(HERE, device=device, micro_batch=2 if parts > 1 else None)
    store = store_of(folder, QUANTIZED)
    model = build_for_training(config.detector, store.conventions, config.train, device).train()
    step = TrainStep(model, student_losses(config), config.train, machine)
    batches = load(folder, device, loss, parts=parts)
    for _ in range(2):
        step.step(tuple(batch.to(device) for batch in batches), 0.0)
    with waits() as lines:
        step.step(tuple(batch.to(device) for batch in batches), 0.0)
    record_property("waits", dict(Counter(lines)))
    assert not lines


class CheckpointsThenWait(Checkpoints):
    """Waits to be killed once the first checkpoint is there."""

    def save(self, state: State) -> None:
        super().save(state)
        (self.folder / "saved").touch()
        time.sleep(PATIENCE_S)


def train_until_killed(folder: Path, unfinished: Path, device: str) -> None:
    machine = replace(HERE, device=torch.device(device))
    config = student(FULL, **SCHEDULE, norm_eval=True)
    taught(config, folder, machine, checkpoints=CheckpointsThenWait(folder=unfinished))


def test_a_killed_training_goes_on(
    folder: Path, tmp_path: Path, device: torch.device, record_property: Record
) -> None:
    whole = train_here(folder, device)
    process = get_context("spawn").Process(target=train_until_killed, args=(folder, tmp_path, str(device)))
    process.start()
    deadline = time.monotonic() + PATIENCE_S
    while not (tmp_path / "saved").exists() and time.monotonic() < deadline and process.is_alive():
        time.sleep(0.05)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    config = student(FULL, **SCHEDULE, norm_eval=True)
    machine = replace(HERE, device=device)
    checkpoints = Checkpoints(folder=tmp_path)
    kept = checkpoints.load(SINGLE_PROCESS)
    assert kept is not None
    assert kept["curve"]["step"] > 0
    resumed = taught(config, folder, machine, checkpoints=checkpoints)
    error = relative_difference(resumed.model, whole.model)
    record_property("weights_error", error)
    assert error <= (0 if device.type == "cpu" else WEIGHTS_ERROR["exact"])


def test_layout_and_precision_of_a_network(
    folder: Path, device: torch.device, record_property: Record
) -> None:
    """Weights lie in channels last; which module leaves that layout is recorded."""
    config = student(FULL, **SCHEDULE)
    conventions = store_of(folder, QUANTIZED).conventions
    model = build_for_training(config.detector, conventions, config.train, device)
    left: list[str] = []

    def look(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[1:]) > 1:
            left.extend([name] * (not output.is_contiguous(memory_format=torch.channels_last)))

    for name, module in model.named_modules():
        module.register_forward_hook(lambda _module, _inputs, output, name=name: look(name, output))
    model(torch.rand(2, 3, 96, 128, device=device).to(memory_format=torch.channels_last))
    record_property("not_channels_last", left)
    record_property("tf32_convolutions", torch.backends.cudnn.allow_tf32)
    weights = [weight for weight in model.parameters() if weight.dim() == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
