"""One timer for all that is measured: candidates take turns, so that a busy machine is as busy for each."""

import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import inf
from statistics import median

import numpy as np
import torch

Work = Callable[[], object]

PACKAGES = ("torch", "torchvision", "zarr")


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Seconds of one candidate over all rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def from_rounds(cls, seconds: Iterable[float], count: int = 1) -> "Repeats":
        """Seconds of each of ``count`` equal pieces of work."""
        each = [value / count for value in seconds]
        return cls(median=median(each), lowest=min(each), highest=max(each))


def seconds_of(work: Work, device: torch.device) -> float:
    """Seconds until a device has done what ``work`` gave it."""
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - start


def take_turns(
    candidates: Mapping[str, Work], rounds: int, device: torch.device, budget: float = inf
) -> dict[str, list[float]]:
    """Seconds of every candidate, by name, in every round, each round in a new random order.

    One more round goes before, whose seconds are dropped, unless it takes longer than a ``budget`` of
    seconds: then it is the only one, and counts.
    """
    rng, names = np.random.default_rng(0), list(candidates)
    first = {name: [seconds_of(candidates[name], device)] for name in names}
    if sum(seconds for (seconds,) in first.values()) > budget:
        return first
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for place in rng.permutation(len(names)).tolist():
            seconds[names[place]].append(seconds_of(candidates[names[place]], device))
    return seconds


def peak_bytes(work: Work, device: torch.device) -> int | None:
    """The most of a GPU's memory that ``work`` holds at a time, beyond what was held before it."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def machine_facts(device: torch.device) -> dict[str, str]:
    """What a measurement was made with."""
    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "device": str(device),
        **gpu,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
