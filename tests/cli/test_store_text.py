"""A store in plain text: what a person looks for is there, in few characters, in any terminal."""

from pathlib import Path

import pytest

from pipeline.cli.store_text import (
    WIDTH,
    counted,
    describe_problems,
    duration,
    listed,
    render_problems,
    render_summary,
)
from pipeline.core.progress import describe_bytes
from pipeline.store.reader.verify import Problem
from pipeline.store.tools.summary import ByteCounts, PointCounts, StoreSummary

SUMMARY = StoreSummary(
    path="cache/targets.zarr",
    format_version=2,
    views=4000,
    images=2000,
    boxes=11366,
    partitions=8,
    views_per_partition=512,
    points=PointCounts(
        total=336606,
        per_view=84.1515,
        main=73001,
        main_per_view=18.25,
        valuable=304372,
        valuable_per_view=76.093,
        mean_valuable_weight=0.2051,
    ),
    bins=17,
    num_classes=4,
    strides=(8, 16, 32),
    precision={"edge_step": 0.1, "edge_step_cap": 4.0, "cls_step": None},
    quantizer="word " * 60,
    clipped={"edge": 0.000123, "cls": 0.0},
    bytes=ByteCounts(
        total=18_400_000, per_view=4600.0, per_point=54.66, arrays={"points/edge_codes": 17_000_000}
    ),
    fingerprint_sha256="03547155d52a294c" * 4,
    fingerprint={
        "annotations": "ab" * 32,
        "teacher": {"weights": "cd" * 32, "batch_size": 32, "architecture": {"backbone": "resnet18"}},
        "preprocessing": {"resize": "bilinear, no antialiasing"},
    },
    provenance={"method": "LD"},
    wrong_sizes={},
)


def test_every_fact_is_in_the_text() -> None:
    text = render_summary(SUMMARY)
    facts = ["4,000", "2,000", "11,366", "84.2 a view", "18.2 a view", "76.1 a view", "mean weight 0.205"]
    facts += ["18.4 MB", "4.60 KB a view", "54.7 B a kept point", "0.0123% of the edge codes", "8, 16, 32 px"]
    facts += ["cls_step null", "03547155d52a294c", "weights cdcdcdcdcdcd, batch_size 32", "abababababab"]
    facts += ["backbone resnet18", "bilinear, no antialiasing", "all there", "92.4%"]
    for fact in facts:
        assert fact in text, fact


def test_lines_fit_a_terminal_and_need_no_special_font() -> None:
    text = render_summary(SUMMARY)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.isascii()


def test_damage_that_shows_without_reading_is_said() -> None:
    wrong = {"points/region/c/1/0": "the file is missing"}
    damaged = StoreSummary(**{**vars(SUMMARY), "images": None, "wrong_sizes": wrong})
    text = render_summary(damaged)
    assert "DAMAGED, 1 file: points/region/c/1/0 (the file is missing)" in " ".join(text.split())
    assert "unknown (their table is damaged)" in text


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


def test_numbers_have_ordinary_spaces() -> None:
    assert (describe_bytes(18_400_000), duration(3723)) == ("18.4 MB", "1 h 2 min")
