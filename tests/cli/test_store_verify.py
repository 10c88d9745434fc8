"""Damage of a store in plain text: each file in a line, long lists cut."""

from pathlib import Path

import pytest

from pipeline.cli.store import describe_problems, render_problems
from pipeline.core.errors import listed
from pipeline.core.progress import counted
from pipeline.store.reader.verify import Problem


def test_problems_have_a_line_each_with_file_partition_and_reason() -> None:
    problems = [
        Problem(file="points/region/c/12/0", partition=12, message="the file is missing"),
        Problem(file="stray", partition=None, message="the file is not part of the store"),
    ]
    first, second = render_problems(problems).splitlines()
    assert first.split("  ") == ["points/region/c/12/0", "partition 12", "the file is missing"]
    assert first.index("the file") == second.index("the file")
    assert describe_problems(problems) == "2 damaged files, in partition 12"
    assert describe_problems(problems[1:]) == "1 damaged file, no partition among them"
    assert render_problems([]) == ""


@pytest.mark.parametrize(("number", "text"), [(1, "1 view"), (0, "0 views"), (4000, "4,000 views")])
def test_nouns_are_counted(number: int, text: str) -> None:
    assert counted(number, "view") == text


def test_long_lists_end_with_how_many_are_left() -> None:
    assert listed([Path("a"), 2]) == "a, 2"
    assert listed(range(12)).endswith("8, 9 and 2 more")
