"""Where a network computes, by the name of a device in the environment, and in how many bits."""

import os

import torch

from pipeline.core.environment import Environment
from pipeline.core.errors import ConfigError
from pipeline.detector.config import NetworkPrecision


def device() -> torch.device:
    """The device to compute on; a ``ConfigError`` if ``LDP_DEVICE`` is none, or none of this machine's."""
    name = Environment.read().device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
        # A GPU is counted, not tried: half a GB of it would be gone, also in a process that only waits.
        if chosen.type == "cuda":
            is_here = (chosen.index or 0) < torch.cuda.device_count()
        else:
            is_here = not torch.empty(0, device=chosen).is_meta
    except (RuntimeError, AssertionError, ImportError):
        is_here = False
    if not is_here:
        raise ConfigError(
            f"LDP_DEVICE: expected a torch device of this machine such as cpu or cuda:0, but got {name!r}"
        )
    return chosen


def worker_environments(chosen: torch.device) -> list[dict[str, str]]:
    """What each process that writes the store has beside this one's environment: a GPU, round and round."""
    gpus: list[str] = []
    if chosen.type == "cuda" and chosen.index is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    workers = Environment.read().cache_workers or max(1, len(gpus))
    return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {} for i in range(workers)]


def autocast(precision: NetworkPrecision, device: torch.device) -> torch.autocast:
    """A context in which networks compute so; float32 is as PyTorch has it: TF32 in a GPU's convolutions."""
    return torch.autocast(device.type, dtype=getattr(torch, precision), enabled=precision != "float32")
