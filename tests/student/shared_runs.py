"""The same students trained by real processes that share every batch (gloo, on the CPU)."""

from dataclasses import replace
from pathlib import Path

import torch
from teacher_cases import QUANTIZED, small_plan
from torch import distributed
from training_cases import FULL, HERE, IMAGES, store_of, student, trained

from pipeline.detector.gfl import GFL
from pipeline.student.train import StudentConfig
from pipeline.training.processes import ALONE, Processes

SCHEDULE = {"epochs": 3, "batch_size": 4, "warmup_steps": 2}

CASES: dict[str, StudentConfig] = {
    "norms_in_eval": student(FULL, SCHEDULE, norm_eval=True),
    "norms_in_training": student(FULL, SCHEDULE),
    "grouped": student(FULL, SCHEDULE, norm_eval=True, group_by_aspect=True),
}
"""Each takes six steps on images of different sizes."""


def train_all(folder: Path, processes: Processes, micro_batch: int | None) -> dict[str, GFL]:
    """Train every case, as one of the processes."""
    plan, store = small_plan(folder, IMAGES), store_of(folder, QUANTIZED)
    machine = replace(HERE, processes=processes, micro_batch=micro_batch)
    return {
        name: trained(config, store, plan, machine).model
        for name, config in CASES.items()
        if config.train.norm_eval or micro_batch is None
    }


def member(rank: int, count: int, folder: Path) -> None:
    """What each process runs; the first keeps its weights."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet_{count}", rank=rank, world_size=count
    )
    models = train_all(folder, Processes(rank=rank, count=count), None)
    if rank == 0:
        torch.save({name: model.state_dict() for name, model in models.items()}, folder / f"{count}.pt")
    distributed.destroy_process_group()


def trained_by(folder: Path, count: int) -> dict[str, dict[str, torch.Tensor]]:
    """State of every case after training in ``count`` processes."""
    if count == 1:
        return _trained_alone(folder)
    torch.multiprocessing.spawn(member, args=(count, folder), nprocs=count)
    states: dict[str, dict[str, torch.Tensor]] = torch.load(folder / f"{count}.pt", weights_only=True)
    return states


def _trained_alone(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """With one thread, as the members have: BatchNorm in training makes much of a sum in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: model.state_dict() for name, model in train_all(folder, ALONE, None).items()}
    finally:
        torch.set_num_threads(threads)
