import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from finished import working_in
from report_cases import LD_LOSS, NO_LOSS, bare_project, run_of, student

from pipeline.core.paths import SPLITS
from pipeline.report.collect import Report, collect, shown_students
from pipeline.report.figures import inline_svg, loss_chart
from pipeline.report.numbers import decimal, direction, duration, signed, significant, size
from pipeline.report.page import detector_lines, render
from pipeline.report.runs import Curve, choose_pair
from pipeline.report.summary import claim, headline
from pipeline.student.config import StudentConfig
from pipeline.views.manifest import read_manifest

NULL_METRICS = {
    **dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl")),
    "per_class": dict.fromkeys(("ellipse", "rectangle", "triangle", "cross")),
}
AREA_EDGES = (16.0, 40.0)

CASES: dict[str, dict[str, StudentConfig]] = {
    "pair": {"plain": student(NO_LOSS), "ld": student(LD_LOSS)},
    "only_plain": {"plain": student(NO_LOSS)},
    "only_distilled": {"ld": student(LD_LOSS), "ld_2": student(LD_LOSS, seed=1)},
}


class Outline(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


Collect = Callable[[Mapping[str, StudentConfig]], Report]


@pytest.fixture(scope="module")
def collected(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Collect:
    def collect_case(students: Mapping[str, StudentConfig]) -> Report:
        folder = tmp_path_factory.mktemp("report") / "project"
        run = bare_project(finished_project, folder, students, NULL_METRICS)
        with working_in(folder):
            train, val = (read_manifest(run.manifest(split)) for split in SPLITS)
            return collect(run, train, val, students, torch.device("cpu"))

    return collect_case


@pytest.fixture(scope="module")
def report(collected: Collect) -> Report:
    return collected(CASES["pair"])


@pytest.fixture(scope="module", params=CASES)
def page(request: pytest.FixtureRequest, report: Report, collected: Collect) -> str:
    students = CASES[request.param]
    if request.param != "pair":
        report = collected(students)
    page = render(report, AREA_EDGES)
    assert all(name in Outline(page).text for name in students)
    return page


def test_page_needs_no_other_file(page: str) -> None:
    outline = Outline(page)
    assert outline.links
    assert all(link.startswith(("#", "data:image/")) for link in outline.links)
    assert not outline.tags["script"]
    assert not outline.tags["link"]
    assert not outline.tags["iframe"]
    assert "@import" not in page
    assert "url(http" not in page


def test_every_reference_has_one_target(page: str) -> None:
    outline = Outline(page)
    assert max(Counter(outline.ids).values()) == 1
    assert {link[1:] for link in outline.links if link.startswith("#")} <= set(outline.ids)


def test_unknown_metrics_are_dashes(page: str) -> None:
    text = Outline(page).text
    assert "\N{EN DASH}" in text
    assert not re.search(r"\b(None|nan|NaN|inf)\b", text.replace("None of the sampled views", ""))


def test_page_says_what_is_not_there(page: str) -> None:
    text = Outline(page).text
    assert "No loss curve" in text
    assert "no detection" in text


@pytest.mark.parametrize("page", ["pair"], indirect=True)
def test_page_is_the_same_each_time(page: str, report: Report) -> None:
    assert render(report, AREA_EDGES) == page


def test_names_are_escaped(report: Report) -> None:
    runs = [replace(run, name=f"<b>{run.name}") for run in report.students]
    named = replace(report, students=runs, views=report.views[:1])
    assert "<b>ld" not in render(replace(named, pair=choose_pair([])), AREA_EDGES)


def test_page_of_a_store_without_views_to_show(report: Report) -> None:
    page = render(replace(report, views=[]), AREA_EDGES)
    assert "None of the sampled views" in Outline(page).text


def claim_of(report: Report, plain: float | None, distilled: float | None) -> str:
    students = [run_of("plain", student(NO_LOSS), plain), run_of("ld", student(LD_LOSS), distilled)]
    return claim(replace(report, students=students, pair=choose_pair(students)))


def test_claim_follows_the_numbers(report: Report) -> None:
    assert "+2.5 points over" in claim_of(report, 20.0, 22.5)
    assert "in this run, \N{MINUS SIGN}2.5 points against" in claim_of(report, 22.5, 20.0)
    assert "no more than" in claim_of(report, 20.0, 20.04)
    assert "\N{EN DASH} AP; it cannot be compared with the same" in claim_of(report, 20.0, None)
    assert "(\N{EN DASH})" in claim_of(report, None, 20.0)
    alone = [run_of("ld", student(LD_LOSS), 20.0)]
    assert "no plain student" in claim(replace(report, students=alone, pair=choose_pair(alone)))


def test_a_teacher_that_detects_nothing_is_named_as_the_reason(report: Report) -> None:
    assert "shows that it works" not in claim(report), "the case has a teacher without AP"
    weak = replace(report, teacher=run_of("teacher", None, 0.4))
    assert "shows that it works" in claim(weak)
    assert "shows that it works" in headline(weak)


def test_the_headline_has_every_detector_and_its_gain(report: Report) -> None:
    students = [run_of("plain", student(NO_LOSS), 41.5), run_of("ld", student(LD_LOSS), 43.0)]
    shown = replace(report, teacher=run_of("teacher", None, 47.3), students=students)
    assert headline(shown) == "AP: teacher 47.3, plain 41.5, ld 43.0 (+1.5)"


def test_what_the_teacher_would_cost_in_the_loop_by_hand(report: Report) -> None:
    students = [run_of("ld", student(LD_LOSS), 1.0), run_of("plain", student(NO_LOSS), 1.0)]
    timing = {"seconds": 4.0, "views": 20, "computed_views": 20, "device": "cpu"}
    known = replace(report, students=students, cache_timing=timing)
    # 5 views a second; 2 epochs of 10 images are 20 forward passes: as long as the store took.
    assert known.teacher_seconds == {"ld": 4.0}
    assert known.students_to_pay == 2
    assert replace(known, students=students[1:]).students_to_pay is None, "none was distilled"


def test_times_count_what_an_earlier_run_of_the_stage_wrote(report: Report) -> None:
    """A kill after 14 of 20 views: the last run took 1.2 s for 6."""
    timing = {"seconds": 1.2, "views": 20, "computed_views": 6}
    assert replace(report, cache_timing=timing).cache_seconds == pytest.approx(4.0)
    assert replace(report, cache_timing={"seconds": 0.1, "views": 20}).cache_seconds is None


def test_many_students_are_told_apart_and_few_are_drawn() -> None:
    runs = [run_of("plain", student(NO_LOSS), 1.0)]
    runs += [run_of(f"ld_{number}", student(LD_LOSS), float(number)) for number in range(9)]
    lines = detector_lines(runs)
    assert len({line.color for line in lines}) == len(runs)
    drawn = [run.name for run in shown_students(runs, choose_pair(runs))]
    assert drawn == ["plain", "ld_0", "ld_8"]


def test_chart_brings_no_style_sheet_and_no_repeated_id() -> None:
    document = (
        '<?xml version="1.0"?>\n<svg xmlns:xlink="x" width="10pt" height="5pt" viewBox="0 0 10 5" xmlns="y">'
        '<metadata>m</metadata><defs><style type="text/css">*{a: b}</style></defs><g id="axes_1"/></svg>'
    )
    assert inline_svg(document) == '<svg class="chart" viewBox="0 0 10 5"><defs></defs><g/></svg>'


def test_numbers_read_well() -> None:
    assert [size(value) for value in (999, 1000, 12_345, 2.6e12)] == [
        "999\N{NO-BREAK SPACE}B",
        "1.00\N{NO-BREAK SPACE}KB",
        "12.3\N{NO-BREAK SPACE}KB",
        "2.60\N{NO-BREAK SPACE}TB",
    ]
    assert [signed(value) for value in (0.04, -0.04, 1.25, -1.25, None)] == [
        "0.0",
        "0.0",
        "+1.2",
        "\N{MINUS SIGN}1.2",
        "\N{EN DASH}",
    ]
    assert [direction(value) for value in (0.04, 0.1, -0.1, None)] == ["same", "better", "worse", "same"]
    assert [decimal(1234567, 0), decimal(41.26), decimal(None)] == ["1,234,567", "41.3", "\N{EN DASH}"]
    assert significant(1.94e-5) == "1.9e-05"
    assert [duration(value).replace("\N{NO-BREAK SPACE}", " ") for value in (4.01, 59.6, 3599, 7300)] == [
        "4.0 s",
        "60 s",
        "59 min 59 s",
        "2 h 2 min",
    ]


def chart_of(**losses: list[float]) -> str | None:
    run = run_of("ld", student(LD_LOSS), 1.0)
    curves = {name: Curve([*range(1, len(values) + 1)], values) for name, values in losses.items()}
    return loss_chart([replace(run, losses=curves)], detector_lines([run]))


def test_loss_of_weight_zero_has_no_panel() -> None:
    chart = chart_of(loss_ld=[2.0, 1.0], loss_kd=[0.0, 0.0])
    assert chart is not None
    assert "main LD" in chart
    assert "KD" not in chart
    assert chart_of() is None


def test_a_run_of_one_row_is_a_dot() -> None:
    """Beside its tick at the one step there is; a line of one point would be nothing to see."""
    dot, line = chart_of(loss=[2.0]), chart_of(loss=[2.0, 2.0])
    assert dot is not None
    assert line is not None
    color = f"fill: {detector_lines([run_of('ld', student(LD_LOSS), 1.0)])[0].color}"
    assert color in dot
    assert color not in line
