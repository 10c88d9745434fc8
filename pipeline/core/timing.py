"""How long something took, and when what took long has paid for itself."""

import time
from collections.abc import Callable
from math import floor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def timed_call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What ``function`` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def break_even(store: float, saved: float) -> int | None:
    """Students from which on a store costs less, where each saves as much; ``None`` if it never does."""
    return floor(store / saved) + 1 if saved > 0 else None
