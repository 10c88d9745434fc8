"""One timer for all that is measured: candidates take turns, so that a busy machine is as busy for each."""

import platform
import random
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from math import inf
from statistics import median
from typing import NamedTuple

import torch

Work = Callable[[], object]


class Repeats(NamedTuple):
    """Seconds of one candidate over all rounds."""

    median: float
    lowest: float
    highest: float


def seconds_of(work: Work, device: torch.device) -> float:
    """Seconds until a device has done what ``work`` gave it."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def take_turns(
    candidates: Mapping[str, Work], rounds: int, device: torch.device, pieces: int = 1, budget: float = inf
) -> dict[str, Repeats]:
    """Seconds of one of each candidate's equal ``pieces``, by name, over rounds in random orders.

    One more round goes before, which does not count, unless it takes longer than ``budget`` seconds: then it
    is the only one.
    """
    rng = random.Random(0)
    seconds = {name: [seconds_of(work, device)] for name, work in candidates.items()}
    if sum(first for (first,) in seconds.values()) <= budget:
        seconds = {name: [] for name in candidates}
        for _ in range(rounds):
            for name in rng.sample(list(candidates), len(candidates)):
                seconds[name].append(seconds_of(candidates[name], device))
    return {
        name: Repeats(*(of(each) / pieces for of in (median, min, max))) for name, each in seconds.items()
    }


def machine_facts(device: torch.device) -> dict[str, str]:
    """What a measurement was made with."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "zarr")},
    }
