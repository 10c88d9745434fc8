"""Damage of a store in plain text, for a terminal."""

from collections.abc import Sequence

from pipeline.core.progress import counted
from pipeline.store.reader.verify import Problem

MAX_LISTED = 10
"""Files or partitions that are named one by one."""


def render_problems(problems: Sequence[Problem]) -> str:
    """A line for every damaged file: which, of which partition, and what is wrong."""
    places = ["" if p.partition is None else f"partition {p.partition}" for p in problems]
    file_width = max((len(problem.file) for problem in problems), default=0)
    place_width = max(map(len, places), default=0)
    return "".join(
        f"{problem.file:{file_width}}  {place:{place_width}}  {problem.message}\n"
        for problem, place in zip(problems, places, strict=True)
    )


def describe_problems(problems: Sequence[Problem]) -> str:
    """How many files are damaged, and in which partitions."""
    partitions = sorted({problem.partition for problem in problems if problem.partition is not None})
    if not partitions:
        return f"{counted(len(problems), 'damaged file')}, no partition among them"
    noun = "partition" if len(partitions) == 1 else "partitions"
    return f"{counted(len(problems), 'damaged file')}, in {noun} {listed(partitions)}"


def listed(items: Sequence[object]) -> str:
    """The first items, and how many more there are."""
    shown = ", ".join(map(str, items[:MAX_LISTED]))
    more = len(items) - MAX_LISTED
    return f"{shown} and {more:,} more" if more > 0 else shown
