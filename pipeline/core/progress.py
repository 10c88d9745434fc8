"""How far work is, how much it is, how long it takes: bars with an estimate, and figures in words."""

import sys
import time
from collections.abc import Callable, Iterable
from math import floor
from typing import Any, ParamSpec, TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

P = ParamSpec("P")
T = TypeVar("T")

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 15.0
"""How often a terminal, and a file, is told of progress."""
LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f} %), {elapsed} passed, {remaining} left{postfix}"
"""Of such a file."""


class _Lines:
    """Standard error for a bar: where no terminal moves back at a carriage return, each state is a line."""

    def write(self, text: str) -> None:
        if state := text.strip():
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(total: int, label: str, unit: str, *, initial: int = 0, hidden: bool = False) -> "tqdm[Any]":
    """A bar that the caller advances from ``initial``; ``hidden`` where another process shows it."""
    terminal = sys.stderr.isatty()
    seconds = TERMINAL_SECONDS if terminal else LOG_SECONDS
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        initial=initial,
        disable=hidden,
        mininterval=seconds,
        maxinterval=seconds,
        smoothing=0.05,
        file=None if terminal else _Lines(),
        bar_format=None if terminal else LINE,
    )


def show_progress(items: Iterable[T], total: int, label: str, *, unit: str = "it") -> Iterable[T]:
    """Pass ``total`` finished items through."""
    # What is logged meanwhile goes above the bar, not into it.
    with progress_bar(total, label, unit) as bar, logging_redirect_tqdm():
        for item in items:
            bar.update()
            yield item


def describe_bytes(count: float) -> str:
    """Bytes in three digits, in powers of 1,000."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    decimals = 0 if count >= 100 or unit == "B" else 1 if count >= 10 else 2
    return f"{count:.{decimals}f} {unit}"


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural where that belongs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def timed_call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What ``function`` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def break_even(store: float, saved: float) -> int | None:
    """Students from which on a store costs less, where each saves as much; ``None`` if it never does."""
    return floor(store / saved) + 1 if saved > 0 else None
