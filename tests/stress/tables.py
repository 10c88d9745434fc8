"""What the experiments print: progress to standard error, one table to standard output."""

import argparse
import logging
import sys
from collections.abc import Sequence


def start_logging() -> None:
    """Progress, with the time of day."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The command line of an experiment, described by its module."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def render(header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown, its columns aligned."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def report(title: str, tables: Sequence[str], problems: Sequence[str]) -> int:
    """Print the figures and what was wrong; returns the exit code."""
    verdict = "\n".join(f"WRONG: {problem}" for problem in problems) or "nothing was wrong"
    sys.stdout.write("\n\n".join([title, *tables, verdict]) + "\n")
    return 1 if problems else 0
