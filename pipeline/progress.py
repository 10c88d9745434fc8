"""Progress bars with an estimate: often on a terminal, seldom in a log file."""

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

TERMINAL_SECONDS = 0.2
LOG_SECONDS = 15.0
"""Where progress goes to a file, a line this often is enough."""


def progress_bar(total: int, label: str, unit: str) -> "tqdm[Any]":
    """A bar that the caller advances."""
    seconds = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    return tqdm(total=total, desc=label, unit=unit, mininterval=seconds, maxinterval=seconds, smoothing=0.05)


def show_progress(items: Iterable[T], total: int, label: str) -> Iterable[T]:
    """Pass items through and show how far they are."""
    with progress_bar(total, label, "it") as bar:
        for item in items:
            yield item
            bar.update()
