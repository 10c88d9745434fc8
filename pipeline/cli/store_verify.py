"""``ldp store verify``: damage of a store in plain text, for a terminal."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from pipeline.cli.options import command
from pipeline.cli.store_info import PRINT_JSON, STORE, find_store, to_json
from pipeline.core.errors import CacheError, listed
from pipeline.core.progress import counted
from pipeline.core.tables import align
from pipeline.store.reader.verify import Problem, verify


@command(STORE, PRINT_JSON)
def verify_command(arguments: argparse.Namespace) -> None:
    """Reads every file of a store; prints each damaged, missing or unexpected one with its partition.

    The exit code is 0 for a whole store, and 1 otherwise.
    """
    path, _ = find_store(arguments.store)
    problems = verify(path, "verify")
    if arguments.json:
        damaged = sorted({problem.partition for problem in problems if problem.partition is not None})
        document = {"path": str(path), "whole": not problems, "damaged_partitions": damaged}
        sys.stdout.write(to_json({**document, "problems": [asdict(problem) for problem in problems]}))
    else:
        sys.stdout.write(render_problems(problems) or f"{path} is whole: every file is as recorded\n")
    if problems:
        raise CacheError(f"{path}: {describe_problems(problems)}; `ldp store repair` makes them again")


def render_problems(problems: Sequence[Problem]) -> str:
    """A line for every damaged file: which, of which partition, and what is wrong."""
    return align(
        [(p.file, "" if p.partition is None else f"partition {p.partition}", p.message) for p in problems]
    )


def describe_problems(problems: Sequence[Problem]) -> str:
    """How many files are damaged, and in which partitions."""
    partitions = sorted({problem.partition for problem in problems if problem.partition is not None})
    if not partitions:
        return f"{counted(len(problems), 'damaged file')}, no partition among them"
    noun = "partition" if len(partitions) == 1 else "partitions"
    return f"{counted(len(problems), 'damaged file')}, in {noun} {listed(partitions)}"
