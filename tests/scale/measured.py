"""Seconds and peak memory of a piece of work in a process of its own, and a table of them."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from pipeline.core.tables import markdown_table

Row = list[str]
"""Name, seconds, CPU seconds, peak memory and result of one piece of work.

CPU seconds are of the process and of those that it started, which a busy machine does not stretch; the peak
is the largest resident memory of any of them, interpreter and libraries included.
"""


def measure(name: str, work: Callable[..., Any], *arguments: Any) -> Row:
    """Run ``work`` in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        row = [name, *pool.submit(_run, work, arguments).result()]
    sys.stderr.write(f"{row}\n")
    return row


def _run(work: Callable[..., Any], arguments: Sequence[Any]) -> Row:
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak = max(usage.ru_maxrss for usage in usages) / 1024
    return [f"{seconds:,.1f}", f"{cpu_seconds:,.1f}", f"{peak:,.0f}", str(result or "")]


def render(rows: Sequence[Row]) -> str:
    return markdown_table(["", "seconds", "CPU seconds", "peak MB", ""], rows)
