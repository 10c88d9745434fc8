"""Seconds and peak memory of a piece of work in a process of its own, and a table of them."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from pipeline.core.tables import markdown_table


class Measured(NamedTuple):
    """One piece of work."""

    name: str
    seconds: float
    cpu_seconds: float
    """Of the process and of those that it started: what a busy machine does not stretch."""
    peak_mb: float
    """Largest resident memory of any of them, interpreter and libraries included."""
    result: Any


def measure(name: str, work: Callable[..., Any], *arguments: Any) -> Measured:
    """Run ``work`` in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        measured = pool.submit(_run, name, work, arguments).result()
    sys.stderr.write(f"{measured}\n")
    return measured


def _run(name: str, work: Callable[..., Any], arguments: Sequence[Any]) -> Measured:
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return Measured(name, seconds, cpu_seconds, max(usage.ru_maxrss for usage in usages) / 1024, result)


def render(rows: Sequence[Measured]) -> str:
    """A table in Markdown."""
    cells = [
        (m.name, f"{m.seconds:,.1f}", f"{m.cpu_seconds:,.1f}", f"{m.peak_mb:,.0f}", str(m.result))
        for m in rows
    ]
    return markdown_table(("", "seconds", "CPU seconds", "peak MB", ""), cells)


def render_growth(columns: Mapping[int, Sequence[Measured]]) -> str:
    """The same pieces of work for several sizes, side by side: CPU seconds and peak memory."""
    rows = [
        [of_sizes[0].name, *(f"{m.cpu_seconds:,.1f}, {m.peak_mb:,.0f}" for m in of_sizes)]
        for of_sizes in zip(*columns.values(), strict=True)
    ]
    return markdown_table(["CPU seconds, peak MB", *(f"{size:,}" for size in columns)], rows)
