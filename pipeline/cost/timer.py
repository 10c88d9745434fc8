"""One timer for all that is measured: candidates take turns, so that a busy machine is as busy for each."""

import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from math import inf
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

Work = Callable[[], object]

PACKAGES = ("torch", "torchvision", "zarr")


class Repeats(NamedTuple):
    """Seconds of one candidate over all rounds."""

    median: float
    lowest: float
    highest: float


def seconds_of(work: Work, device: torch.device) -> float:
    """Seconds until a device has done what ``work`` gave it."""
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return time.perf_counter() - start


def take_turns(
    candidates: Mapping[str, Work], rounds: int, device: torch.device, pieces: int = 1, budget: float = inf
) -> dict[str, Repeats]:
    """Seconds of one of each candidate's equal ``pieces``, by name, over rounds in random orders.

    One more round goes before, which does not count, unless it takes longer than ``budget`` seconds: then it
    is the only one.
    """
    rng, names = np.random.default_rng(0), list(candidates)
    seconds = {name: [seconds_of(candidates[name], device)] for name in names}
    if sum(first for (first,) in seconds.values()) <= budget:
        seconds = {name: [] for name in names}
        for _ in range(rounds):
            for place in rng.permutation(len(names)).tolist():
                seconds[names[place]].append(seconds_of(candidates[names[place]], device))
    return {
        name: Repeats(*(of(each) / pieces for of in (median, min, max))) for name, each in seconds.items()
    }


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
