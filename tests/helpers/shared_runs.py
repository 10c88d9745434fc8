"""The same students trained by real processes that share every batch (gloo, on the CPU)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from forked import ensure_loaded
from teacher_cases import QUANTIZED, small_view_set
from torch import Tensor, distributed
from torch.multiprocessing import start_processes
from training_cases import FULL, HERE, IMAGES, store_of, student, taught, trained

from pipeline.detector.gfl import GFL
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.processes import World

SCHEDULE = {"epochs": 3, "batch_size": 4, "warmup_steps": 2}

CASES = {
    "norms_in_eval": student(FULL, **SCHEDULE, norm_eval=True),
    "norms_in_training": student(FULL, **SCHEDULE),
    "grouped": student(FULL, **SCHEDULE, norm_eval=True, group_by_aspect=True),
}
"""Each takes six steps on images of different sizes."""
GOES_ON = "norms_in_eval"

States = dict[str, dict[str, Tensor]]


def train_all(folder: Path, processes: World, micro_batch: int | None = None) -> dict[str, GFL]:
    """Train every case that can be, as one of the processes."""
    view_set, store = small_view_set(folder, IMAGES), store_of(folder, QUANTIZED)
    machine = replace(HERE, processes=processes, micro_batch=micro_batch)
    return {
        name: trained(config, store, view_set, machine).model
        for name, config in CASES.items()
        if config.train.norm_eval or micro_batch is None
    }


def go_on(folder: Path, processes: World, checkpoints: type[Checkpoints] = Checkpoints) -> dict[str, GFL]:
    """Train a case from the newest checkpoint in the folder on, and leave others there."""
    machine = replace(HERE, processes=processes)
    return {GOES_ON: taught(CASES[GOES_ON], folder, machine, checkpoints=checkpoints(folder=folder)).model}


def states_of(models: dict[str, GFL]) -> States:
    return {name: model.state_dict() for name, model in models.items()}


def in_processes(work: Callable[[Path, World], dict[str, GFL]], folder: Path, count: int) -> States:
    """Weights that several processes come to."""
    ensure_loaded()
    start_processes(_member, (count, folder, work), count, start_method="forkserver")
    states: States = torch.load(folder / f"{work.__name__}_{count}.pt", weights_only=True)
    return states


def _member(rank: int, count: int, folder: Path, work: Callable[[Path, World], dict[str, GFL]]) -> None:
    """What each process runs, with one thread; the first keeps its weights."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/{work.__name__}_{count}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    models = work(folder, World(rank=rank, count=count))
    if rank == 0:
        torch.save(states_of(models), folder / f"{work.__name__}_{count}.pt")
    distributed.destroy_process_group()
