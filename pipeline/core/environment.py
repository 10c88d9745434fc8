"""What every stage shares: errors as one line, logging, and the machine's own settings.

Nothing here changes a byte of any output, so it comes from the environment, never from ``params.yaml``:

``LDP_DEVICE``          a torch device; the first GPU if there is one, else the CPU
``LDP_WORKERS``         processes that decode images for each training process; 0 decodes in the latter
``LDP_CACHE_WORKERS``   processes that write the store; one for each GPU, or 1, which is this process
``LDP_DASK_SCHEDULER``  address (``tcp://HOST:PORT``) of a running Dask scheduler; its workers write the store
                        instead; they need this code and these folders, and cores as in ``--nthreads 8``
``LDP_DATASETS``        folder that ``datasets/`` in ``params.yaml`` stands for (``datasets``)
``LDP_LOG``             log level (INFO)
"""

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.files import atomic_path

if TYPE_CHECKING:
    import torch

MAX_PROCESSES = 1024
"""More are a slip of the finger, which a machine does not survive."""

DATASETS = "datasets"
"""Folder of links to datasets, which git does not track."""


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage: an error that a user can cause is one line and exit code 1."""
    try:
        logging.basicConfig(level=log_level(), format="%(message)s", stream=sys.stderr)
        main()
    except (PipelineError, OSError) as error:
        # A full disk or a missing permission names its file; LDP_LOG=DEBUG shows where it happened.
        logging.getLogger(__name__).debug("where it happened:", exc_info=True)
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def log_level() -> str:
    """How much is logged."""
    name = os.environ.get("LDP_LOG", "INFO").upper()
    if name not in logging.getLevelNamesMapping():
        raise ConfigError(f"LDP_LOG: expected a log level such as INFO or DEBUG, but got {name!r}")
    return name


def named_device() -> str | None:
    """The device that the environment names; where it names none, each machine has its own default."""
    return os.environ.get("LDP_DEVICE")


def device() -> "torch.device":
    """The device to compute on."""
    # Loaded here: it takes seconds, which a command that computes nothing need not wait for.
    loaded = import_module("torch")
    name = named_device() or ("cuda" if loaded.cuda.is_available() else "cpu")
    try:
        chosen: torch.device = loaded.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"LDP_DEVICE: expected a torch device such as cpu or cuda:0, but got {name!r}"
        ) from error
    if not _is_here(chosen):
        raise ConfigError(f"LDP_DEVICE: expected a device that this machine has, but got {name!r}")
    return chosen


def _is_here(chosen: "torch.device") -> bool:
    """Whether anything can be computed on a device."""
    loaded = import_module("torch")
    if chosen.type == "cuda":
        # Counted, not tried: what is put on a GPU takes half a GB of it, also in a process that only waits.
        return (chosen.index or 0) < int(loaded.cuda.device_count())
    try:
        loaded.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ImportError):
        return False
    return chosen.type != "meta"


def workers(training_processes: int = 1) -> int:
    """Decoding processes for each of the training processes."""
    cores = (os.cpu_count() or 1) // training_processes
    value = os.environ.get("LDP_WORKERS", str(max(0, min(8, cores - 2))))
    if not value.isdecimal() or int(value) > MAX_PROCESSES:
        raise ConfigError(
            f"LDP_WORKERS: expected a number of processes up to {MAX_PROCESSES}, but got {value!r}"
        )
    return int(value)


def cache_workers(chosen: "torch.device") -> int:
    """World that write the store."""
    value = os.environ.get("LDP_CACHE_WORKERS", str(max(1, len(_spread_gpus(chosen)))))
    if not value.isdecimal() or not 1 <= int(value) <= MAX_PROCESSES:
        raise ConfigError(
            f"LDP_CACHE_WORKERS: expected a number of processes from 1 to {MAX_PROCESSES}, but got {value!r}"
        )
    return int(value)


def worker_environments(chosen: "torch.device", workers: int) -> list[dict[str, str]]:
    """What each worker process has beside this process's environment: a GPU of its own, round and round."""
    gpus = _spread_gpus(chosen)
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(workers)]


def _spread_gpus(chosen: "torch.device") -> list[str]:
    """CUDA's names of the GPUs to spread workers over; none if LDP_DEVICE names one, or the CPU."""
    if chosen.type != "cuda" or chosen.index is not None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        visible.split(",") if visible else list(map(str, range(import_module("torch").cuda.device_count())))
    )


def evaluation_batch() -> int:
    """Images in one forward pass of an evaluation; changes no detection."""
    value = os.environ.get("LDP_EVAL_BATCH", "16")
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(f"LDP_EVAL_BATCH: expected a number of images from 1, but got {value!r}")
    return int(value)


def dataset_root(root: str) -> str:
    """Where a dataset lies on this machine; a path that is not ``datasets/...`` means itself."""
    first, *rest = Path(root).parts or (root,)
    datasets = os.environ.get("LDP_DATASETS")
    return str(Path(datasets, *rest)) if datasets and first == DATASETS else root


def dask_scheduler() -> str | None:
    """Address of the scheduler whose workers write the store."""
    return os.environ.get("LDP_DASK_SCHEDULER") or None


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write metrics or a description."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


@contextmanager
def timed(path: Path, **facts: object) -> Iterator[dict[str, object]]:
    """Write how long a block took, and facts, which it may add to; no later stage depends on this file."""
    start = time.perf_counter()
    yield facts
    write_json(path, {"seconds": round(time.perf_counter() - start, 2), "device": str(device()), **facts})
