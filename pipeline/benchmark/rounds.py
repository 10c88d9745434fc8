"""Candidates that take turns, so that a busy machine is as busy for each."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch
from numpy.random import Generator

T = TypeVar("T")

ShowRounds = Callable[[Iterable[int], int, str], Iterable[int]]
"""Wraps the numbers of the rounds, given how many and a label, to show how far they are."""


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What a candidate took in every round, seconds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Repeats":
        """Of all rounds."""
        return cls(median=median(seconds), lowest=min(seconds), highest=max(seconds))


def take_turns(
    candidates: Mapping[str, Callable[[], T]], rounds: int, rng: Generator, show: ShowRounds, label: str
) -> dict[str, list[T]]:
    """Call every candidate once a round, each time in a new random order.

    Args:
        candidates: What is measured; each returns what it measured of itself.
        rounds: How many; one more goes before, whose results are dropped.
        rng: Draws the orders.
        show: Shows the rounds.
        label: Of the progress.

    Returns:
        Results by name, in the order of ``candidates``.
    """
    names = list(candidates)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in show(range(rounds + 1), rounds + 1, label):
        for place in rng.permutation(len(names)).tolist():
            result = candidates[names[place]]()
            if number:
                results[names[place]].append(result)
    return results


def now(device: torch.device) -> float:
    """Seconds, once a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
