"""Seconds and peak memory of a piece of work in a process of its own, and a table of them."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One piece of work."""

    name: str
    result: Any
    seconds: float
    cpu_seconds: float
    """Of the process and of those that it started: what a busy machine does not stretch."""
    peak_mb: float
    """Largest resident memory of any of them, interpreter and libraries included."""

    def row(self) -> str:
        times = f"{self.seconds:,.1f} | {self.cpu_seconds:,.1f}"
        return f"| {self.name} | {times} | {self.peak_mb:,.0f} | {self.result} |"


def measure(name: str, work: Callable[..., Any], *arguments: Any) -> Measured:
    """Run ``work`` in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        measured = Measured(name=name, **pool.submit(_run, work, arguments).result())
    sys.stderr.write(f"{measured.row()}\n")
    return measured


def _run(work: Callable[..., Any], arguments: Sequence[Any]) -> dict[str, Any]:
    start = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - start
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "result": result,
        "seconds": seconds,
        "cpu_seconds": sum(usage.ru_utime + usage.ru_stime for usage in usages),
        "peak_mb": max(usage.ru_maxrss for usage in usages) / 1024,
    }


def render(rows: Sequence[Measured]) -> str:
    """A table in Markdown."""
    head = "| | seconds | CPU seconds | peak MB | |\n|---|---|---|---|---|\n"
    return head + "\n".join(row.row() for row in rows) + "\n"


def render_growth(columns: Mapping[int, Sequence[Measured]]) -> str:
    """The same pieces of work for several sizes, side by side: CPU seconds and peak memory."""
    head = "| CPU seconds, peak MB | " + " | ".join(f"{size:,}" for size in columns) + " |\n"
    rule = "|---|" + "---|" * len(columns) + "\n"
    lines = [
        f"| {of_sizes[0].name} | "
        + " | ".join(f"{m.cpu_seconds:,.1f}, {m.peak_mb:,.0f}" for m in of_sizes)
        + " |\n"
        for of_sizes in zip(*columns.values(), strict=True)
    ]
    return head + rule + "".join(lines)
