"""How long something took."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from pipeline.core.files import write_json

P = ParamSpec("P")
T = TypeVar("T")


def timed_call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What ``function`` returns, and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


@contextmanager
def timed(path: Path, **facts: object) -> Iterator[dict[str, object]]:
    """Write how long a block took, and facts, which it may add to; no later stage depends on this file."""
    start = time.perf_counter()
    yield facts
    write_json(path, {"seconds": round(time.perf_counter() - start, 2), **facts})
