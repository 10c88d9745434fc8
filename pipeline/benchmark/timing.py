"""CPU time of single calls, with the candidates taking turns so that a busy machine is as busy for each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pipeline.benchmark.readers import ViewReader
from pipeline.views.types import ViewKey

IMAGE_BYTES = 1216 * 800 * 3
"""A decoded view of the recipes for COCO."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Times of one candidate over all repeats, milliseconds of CPU a view.

    Attributes:
        median: Over all views and repeats.
        p90: 90th percentile of the same.
        lowest: Smallest median of a repeat.
        highest: Largest median of a repeat.
        undisturbed: Median over the views of each one's smallest time: what other work on the machine slows
            down least.
    """

    median: float
    p90: float
    lowest: float
    highest: float
    undisturbed: float

    @classmethod
    def of(cls, milliseconds: NDArray[np.float64]) -> "Spread":
        """Of times (repeats, views)."""
        medians = np.median(milliseconds, axis=1)
        return cls(
            median=float(np.median(milliseconds)),
            p90=float(np.quantile(milliseconds, 0.9)),
            lowest=float(medians.min()),
            highest=float(medians.max()),
            undisturbed=float(np.median(milliseconds.min(axis=0))),
        )


def time_readers(
    readers: Sequence[ViewReader], keys: Sequence[ViewKey], repeats: int, rng: Generator
) -> Mapping[str, Spread]:
    """Read all views with every reader, again and again, each time in a new random order of both.

    Args:
        readers: The candidates; each has read before, so that no first time is counted.
        keys: The views.
        repeats: How often.
        rng: Draws the orders.

    Returns:
        Times by the reader's name, in the order of ``readers``.
    """
    _settle_allocator()
    times = {reader.name: np.empty((repeats, len(keys))) for reader in readers}
    for repeat in range(repeats):
        order = rng.permutation(len(keys)).tolist()
        for place in rng.permutation(len(readers)).tolist():
            reader = readers[place]
            times[reader.name][repeat, order] = [_cpu_milliseconds(reader, keys[index]) for index in order]
    return {name: Spread.of(milliseconds) for name, milliseconds in times.items()}


def _settle_allocator() -> None:
    """Allocate and free an image, as a process that loads training data does for every view.

    After that, glibc keeps smaller blocks for the next read. Before, it gives them back to the kernel each
    time, and the page faults cost half as much again as reading.
    """
    np.ones(IMAGE_BYTES, np.uint8)


def _cpu_milliseconds(reader: ViewReader, key: ViewKey) -> float:
    """All threads of the process, with the kernel's share; waiting does not count."""
    start = time.process_time()
    reader.read(key)
    return (time.process_time() - start) * 1e3
