"""The machine's own settings: they change no byte of any output, so no parameter file has them."""

import os
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from pipeline.core.config import Count, NonNegative, Section, structure

Processes = Annotated[int, Meta(ge=1, le=1024)]
"""More are a slip of the finger, which a machine does not survive."""


class Environment(Section, frozen=True, kw_only=True, rename=lambda field: f"LDP_{field.upper()}"):
    """Every variable that is read: ``device`` is ``LDP_DEVICE``, and so on."""

    device: str | None = None
    """A torch device, such as ``cpu`` or ``cuda:0``; the first GPU if there is one, else the CPU."""
    workers: Annotated[int, Meta(ge=0, le=1024)] | None = None
    """Processes that decode images for each training process; 0 decodes in the latter."""
    cache_workers: Processes | None = None
    """Processes that write the store; one for each GPU, or 1, which is the stage's own."""
    dask_scheduler: str | None = None
    """Address (``tcp://HOST:PORT``) of a Dask scheduler, whose workers write the store instead."""
    datasets: str | None = None
    """Folder that ``datasets/`` in a parameter file stands for."""
    log: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """How much is logged; DEBUG shows where an error happened."""
    train_processes: Processes = 1
    """Training processes on this machine, one a GPU, which the stage starts by itself."""
    micro_batch: Count | None = None
    """Images that pass through the network at once, where a process's share of a batch does not fit."""
    eval_batch: Count = 16
    """Images in one forward pass of an evaluation."""
    checkpoint_seconds: NonNegative = 300.0
    """How often a training saves where it is, beside at the end of each epoch."""
    live: str | None = None
    """Folder in which DVCLive records each training while it runs, in one of its own (extra ``live``)."""
    resume: Literal["changed-code"] | None = None
    """Go on from a checkpoint, or with a store that was begun, although code has changed since."""

    @classmethod
    def unknown(cls) -> list[str]:
        """Variables that are called as ours are, but that nothing reads."""
        known = cls.__struct_encode_fields__
        return sorted(name for name in os.environ if name.startswith("LDP_") and name not in known)

    @classmethod
    def read(cls) -> "Environment":
        """What this process's environment says; a ``ConfigError`` names the variable that is wrong."""
        values = {name: os.environ[name] for name in cls.__struct_encode_fields__ if name in os.environ}
        return structure(cls, values, "", strict=False)


def core_count() -> int:
    """Cores that this process may use: in a container or a job of a cluster fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(training_processes: int = 1) -> int:
    """Decoding processes for each of the training processes; by default a share of the cores."""
    cores = core_count() // training_processes
    chosen = Environment.read().workers
    return max(0, min(8, cores - 2)) if chosen is None else chosen


def dataset_root(root: str) -> str:
    """Where a dataset lies on this machine: in ``LDP_DATASETS``, here, or in the main tree."""
    first, *rest = Path(root).parts or (root,)
    datasets = Environment.read().datasets
    if datasets and first == "datasets":  # the folder of links that git does not track
        return str(Path(datasets, *rest))
    elsewhere = main_tree() / root
    return str(elsewhere) if elsewhere.exists() and not Path(root).exists() else root


def main_tree() -> Path:
    """The repository in which DVC was started: a queued experiment runs in a folder below its ``.dvc``."""
    return Path(os.environ.get("DVC_ROOT", ".")).absolute()
