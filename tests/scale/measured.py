"""Seconds and peak memory of a piece of work in a process of its own, and a table of them."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One piece of work."""

    name: str
    result: Any
    seconds: float
    peak_mb: float
    """Largest resident memory of the process, its interpreter and libraries included."""
    children_mb: float
    """Of the largest process that it started."""

    def row(self) -> str:
        children = f"{self.children_mb:,.0f}" if self.children_mb else ""
        return f"| {self.name} | {self.seconds:,.1f} | {self.peak_mb:,.0f} | {children} | {self.result} |"


def measure(name: str, work: Callable[..., Any], *arguments: Any) -> Measured:
    """Run ``work`` in a fresh process."""
    sys.stderr.write(f"{name} ...\n")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return Measured(name=name, **pool.submit(_run, work, arguments).result())


def _run(work: Callable[..., Any], arguments: Sequence[Any]) -> dict[str, Any]:
    start = time.perf_counter()
    result = work(*arguments)
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    seconds = time.perf_counter() - start
    return {"result": result, "seconds": seconds, "peak_mb": own, "children_mb": children}


def render(rows: Sequence[Measured]) -> str:
    """A table in Markdown."""
    head = "| | seconds | peak MB | peak MB of a child | |\n|---|---|---|---|---|\n"
    return head + "\n".join(row.row() for row in rows) + "\n"
