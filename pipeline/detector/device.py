"""Where a network computes, by the name of a device in the environment, and in how many bits."""

import os

import torch

from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError
from pipeline.detector.config import NetworkPrecision

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device() -> torch.device:
    """The device to compute on; a ``ConfigError`` if ``LDP_DEVICE`` is none, or none of this machine's."""
    name = Environment.read().device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"LDP_DEVICE: expected a torch device such as cpu or cuda:0, but got {name!r}"
        ) from error
    if not _is_here(chosen):
        raise ConfigError(f"LDP_DEVICE: expected a device that this machine has, but got {name!r}")
    return chosen


def _is_here(chosen: torch.device) -> bool:
    """Whether anything can be computed on a device."""
    if chosen.type == "cuda":
        # Counted, not tried: what is put on a GPU takes half a GB of it, also in a process that only waits.
        return (chosen.index or 0) < torch.cuda.device_count()
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ImportError):
        return False
    return chosen.type != "meta"


def cache_workers(chosen: torch.device) -> int:
    """Processes that write the store."""
    return Environment.read().cache_workers or max(1, len(_spread_gpus(chosen)))


def worker_environments(chosen: torch.device, workers: int) -> list[dict[str, str]]:
    """What each worker process has beside this process's environment: a GPU of its own, round and round."""
    gpus = _spread_gpus(chosen)
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(workers)]


def _spread_gpus(chosen: torch.device) -> list[str]:
    """CUDA's names of the GPUs to spread workers over; none if LDP_DEVICE names one, or the CPU."""
    if chosen.type != "cuda" or chosen.index is not None:
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))


def autocast(precision: NetworkPrecision, device: torch.device) -> torch.autocast:
    """A context in which networks compute so; float32 is as PyTorch has it: TF32 in a GPU's convolutions."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "float32")
