"""The same students trained by real processes that share every batch (gloo, on the CPU)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import ensure_loaded
from teacher_cases import QUANTIZED, small_view_set
from torch import distributed
from torch.multiprocessing import start_processes
from training_cases import FULL, HERE, IMAGES, KilledAfterSaving, KilledError, store_of, student, trained

from pipeline.detector.gfl import GFL
from pipeline.student.config import StudentConfig
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.loop import Trained
from pipeline.training.processes import SINGLE_PROCESS, World

SCHEDULE = {"epochs": 3, "batch_size": 4, "warmup_steps": 2}

CASES: dict[str, StudentConfig] = {
    "norms_in_eval": student(FULL, **SCHEDULE, norm_eval=True),
    "norms_in_training": student(FULL, **SCHEDULE),
    "grouped": student(FULL, **SCHEDULE, norm_eval=True, group_by_aspect=True),
}
"""Each takes six steps on images of different sizes."""
GOES_ON = "norms_in_eval"


def train_all(folder: Path, processes: World, micro_batch: int | None) -> dict[str, GFL]:
    """Train every case, as one of the processes."""
    view_set, store = small_view_set(folder, IMAGES), store_of(folder, QUANTIZED)
    machine = replace(HERE, processes=processes, micro_batch=micro_batch)
    return {
        name: trained(config, store, view_set, machine).model
        for name, config in CASES.items()
        if config.train.norm_eval or micro_batch is None
    }


def member(rank: int, count: int, folder: Path) -> None:
    """What each process runs; the first keeps its weights."""
    with joined(rank, count, folder / f"meet_{count}") as processes:
        keep(train_all(folder, processes, None), processes, folder / f"{count}.pt")


def member_that_goes_on(rank: int, count: int, folder: Path) -> None:
    """The same, for the case whose first epoch is finished."""
    with joined(rank, count, folder / f"meet_again_{count}") as processes:
        keep({GOES_ON: go_on(folder, processes).model}, processes, folder / f"on_{count}.pt")


@contextmanager
def joined(rank: int, count: int, meeting: Path) -> Iterator[World]:
    """One of several processes, with one thread."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    yield World(rank=rank, count=count)
    distributed.destroy_process_group()


def keep(models: dict[str, GFL], processes: World, path: Path) -> None:
    """Save weights; the first process does."""
    if processes.is_main:
        torch.save({name: model.state_dict() for name, model in models.items()}, path)


def go_on(folder: Path, processes: World, checkpoints: type[Checkpoints] = Checkpoints) -> Trained:
    """Train the case from the newest checkpoint in the folder on, and leave others there."""
    return trained(
        CASES[GOES_ON],
        store_of(folder, QUANTIZED),
        small_view_set(folder, IMAGES),
        replace(HERE, processes=processes),
        checkpoints=checkpoints(folder=folder),
    )


def continued_by(folder: Path, count: int) -> dict[str, torch.Tensor]:
    """State of the case after its first epoch alone, and the others in ``count`` processes."""
    with pytest.raises(KilledError):
        go_on(folder, SINGLE_PROCESS, KilledAfterSaving)
    ensure_loaded()
    start_processes(member_that_goes_on, (count, folder), count, start_method="forkserver")
    states: dict[str, dict[str, torch.Tensor]] = torch.load(folder / f"on_{count}.pt", weights_only=True)
    return states[GOES_ON]


def trained_by(folder: Path, count: int) -> dict[str, dict[str, torch.Tensor]]:
    """State of every case after training in ``count`` processes."""
    if count == 1:
        return _trained_alone(folder)
    ensure_loaded()
    start_processes(member, (count, folder), count, start_method="forkserver")
    states: dict[str, dict[str, torch.Tensor]] = torch.load(folder / f"{count}.pt", weights_only=True)
    return states


def _trained_alone(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """With one thread, as the members have: BatchNorm in training makes much of a sum in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: model.state_dict() for name, model in train_all(folder, SINGLE_PROCESS, None).items()}
    finally:
        torch.set_num_threads(threads)
