import json
import re
import shutil
from copy import copy
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from finished import FOLDER, STUDENTS, working_in
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from teacher_cases import DETECTOR
from training_cases import FULL, PLAIN, student

from pipeline.core.paths import TEACHER
from pipeline.report import figures
from pipeline.report.page import Report, claim, detector_colors, duration, headline, render, shown
from pipeline.report.runs import Curve, Run, baseline_of, choose_pair, read_losses, read_precision_recall
from pipeline.student.config import StudentConfig

NULL_METRICS = {
    **dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl")),
    "per_class": dict.fromkeys(("ellipse", "rectangle", "triangle", "cross")),
}
AREA_EDGES = (16.0, 40.0)

CASES: dict[str, dict[str, StudentConfig]] = {
    "pair": {"plain": student(PLAIN), "ld": student(FULL)},
    "only_plain": {"plain": student(PLAIN)},
    "only_distilled": {"ld": student(FULL), "ld_2": student(FULL, seed=1)},
}


def run_of(name: str, config: StudentConfig | None, ap: float | None) -> Run:
    """With nothing but an AP."""
    return Run(
        name=name,
        backbone=DETECTOR.backbone,
        parameters=None,
        student=config,
        metrics={"AP": ap},
        per_class={},
        precision_recall={"0.50": Curve([0.0, 1.0], [1.0, 0.0])},
        losses={},
        timing={"seconds": 1.0, "epochs": 2, "images": 10, "device": "cpu"},
    )


def text_of(page: str) -> str:
    return unescape(re.sub("<[^>]*>", "", page))


def collect(finished: Path, folder: Path, case: str) -> Report:
    """The report of a project in which nothing was detected, and no loss curve has a row."""
    shutil.copytree(finished, folder, symlinks=True, dirs_exist_ok=True)
    with working_in(folder):
        for name in {*CASES[case]} - {*STUDENTS}:
            for folder_of in (FOLDER.student, FOLDER.evaluation):
                shutil.copytree(folder_of("ld"), folder_of(name))
        for name in (TEACHER, *CASES[case]):
            FOLDER.summary(name).write_text(json.dumps(NULL_METRICS))
            (FOLDER.evaluation(name) / "detections.json").write_text("[]\n")
        for curve in FOLDER.root.rglob("loss.csv"):
            curve.write_text("step,loss\n")
        return Report(FOLDER, CASES[case], torch.device("cpu"))


@pytest.fixture(scope="module")
def report(finished_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return collect(finished_project, tmp_path_factory.mktemp("report"), "pair")


def changed(report: Report, **values: Any) -> Report:
    other = copy(report)
    vars(other).update(values)
    return other


@pytest.mark.parametrize(
    "case", ["pair", *(pytest.param(name, marks=pytest.mark.slow) for name in [*CASES][1:])]
)
def test_page_needs_no_other_file_and_says_what_is_unknown(
    case: str, report: Report, finished_project: Path, tmp_path: Path
) -> None:
    report = report if case == "pair" else collect(finished_project, tmp_path, case)
    page = render(report, AREA_EDGES)
    assert render(report, AREA_EDGES) == page, "the same each time"
    links, ids = re.findall(r' (?:src|href)="([^"]*)"', page), re.findall(r' id="([^"]*)"', page)
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not re.search(r"<(script|link|iframe)|@import|url\(| (srcset|data|action)=", page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    text = text_of(page).replace("None of the sampled views", "")
    assert all(name in text for name in (*CASES[case], "No loss curve", "\N{EN DASH}"))
    assert not re.search(r"\b(None|nan|NaN|inf)\b", text)


def test_the_page_of_markup_in_names_of_a_weak_teacher_and_of_no_view_to_show(report: Report) -> None:
    runs = [replace(run, name=f"<b>{run.name}") for run in report.students]
    weak = run_of("teacher", None, 0.4)
    page = render(changed(report, students=runs, views=[], teacher=weak), AREA_EDGES)
    assert "<b>ld" not in page
    assert "shows that it works" in page
    assert "None of the sampled views" in text_of(page)


def test_a_distilled_student_is_compared_with_the_plain_one_of_the_same_detector_and_training() -> None:
    other_seed = run_of("other_seed", student(PLAIN, seed=1), 30.0)
    plain = run_of("plain", student(PLAIN), 20.0)
    distilled = run_of("ld", student(FULL), 22.5)
    alone = run_of("alone", student(FULL, seed=3), 40.0)
    students = [alone, other_seed, distilled, plain]
    assert baseline_of(distilled, students) is plain
    assert [baseline_of(run, students) for run in (plain, alone)] == [None, None]
    assert choose_pair(students) == [plain, distilled], "one with a baseline comes first"
    assert choose_pair([alone, other_seed]) == [alone]
    assert choose_pair([other_seed, plain]) == [other_seed]
    assert choose_pair([run_of("only", student(PLAIN), None)])[0].name == "only"


def test_curves_are_read_by_threshold_and_by_term(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("recall,precision,iou\n0.00,1.0,0.50\n1.00,0.5,0.50\n0.00,0.8,0.75\n")
    curves = read_precision_recall(path)
    assert list(curves) == ["0.50", "0.75"]
    assert curves["0.50"] == ([0.0, 1.0], [1.0, 0.5])
    path.write_text("step,loss_cls,loss\n20,1.5,2.0\n40,1.0,1.5\n")
    assert read_losses(path) == {"loss_cls": ([20.0, 40.0], [1.5, 1.0]), "loss": ([20.0, 40.0], [2.0, 1.5])}
    path.write_text("step,loss\n")
    assert read_losses(path) == {}


def test_claim_and_headline_follow_the_numbers(report: Report) -> None:
    def known(plain: float | None, distilled: float | None) -> Report:
        students = [run_of("plain", student(PLAIN), plain), run_of("ld", student(FULL), distilled)]
        return changed(report, students=students, teacher=run_of("teacher", None, 47.3))

    assert "reaches 22.5 AP: +2.5 against the same" in claim(known(20.0, 22.5))
    assert "reaches 20.0 AP: -2.5 against the same" in claim(known(22.5, 20.0))
    assert "reaches 20.0 AP: +0.0 against the same" in claim(known(20.04, 20.0))
    assert "reaches \N{EN DASH} AP: \N{EN DASH} against the same" in claim(known(20.0, None))
    alone = known(20.0, 22.5)
    assert "no plain student" in claim(changed(alone, students=alone.students[1:]))
    assert "No student of this run was distilled" in claim(changed(alone, students=alone.students[:1]))
    assert headline(known(41.5, 43.0)) == "AP: teacher 47.3, plain 41.5, ld 43.0 (+1.5)"


def test_what_the_teacher_would_cost_in_the_loop_by_hand(report: Report) -> None:
    students = [run_of("plain", student(PLAIN), 1.0), run_of("ld", student(FULL), 1.0)]
    timing = {"seconds": 4.0, "views": 20, "computed_views": 20}
    known = changed(report, students=students, cache_timing=timing)
    # 5 views a second; 2 epochs of 10 images are 20 forward passes: as long as the store took.
    assert known.teacher_seconds == 4.0
    assert changed(known, students=students[:1]).teacher_seconds is None, "none was distilled"
    # A kill after 14 of 20 views: the last run took 1.2 s for 6.
    killed = {"seconds": 1.2, "views": 20, "computed_views": 6}
    assert changed(report, cache_timing=killed).cache_seconds == pytest.approx(4.0)
    assert changed(known, cache_timing={"seconds": 0.1, "views": 20}).teacher_seconds is None


def test_sizes_are_those_of_the_whole_store(report: Report) -> None:
    store = report.store
    views = [store.read(key) for key in store.keys]
    grids = [store.pyramid.grid(stored.view.geometry.padded_hw) for stored in views]
    assert report.positions == sum(map(len, grids))
    numbers = 4 * store.bins + store.schema.num_classes
    kept = sum(stored.edge_logits().size + stored.cls_logits().size for stored in views)
    dense = report.positions * numbers
    assert list(report.sizes.values()) == [4 * dense, 2 * dense, 2 * kept, store.statistics["bytes"]]


def test_numbers_read_well() -> None:
    assert [shown(1234567, "{:,}"), shown(41.26), shown(None)] == ["1,234,567", "41.3", "\N{EN DASH}"]
    times = [duration(value) for value in (4.01, 29.6, 59.6, 3599, 7310)]
    assert times == ["4.0 s", "30 s", "1 min 0 s", "59 min 59 s", "2 h 1 min"]


def test_a_loss_of_weight_zero_has_no_panel_and_one_of_a_row_is_a_dot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def panels_of(**losses: list[float]) -> list[Axes]:
        run, panels = run_of("ld", student(FULL), 1.0), list(Figure().subplots(1, 4))
        curves = {name: Curve([*range(1, len(values) + 1)], values) for name, values in losses.items()}
        monkeypatch.setattr(figures, "draw_panels", lambda _label, _height, _grid, draw: draw(panels))
        figures.loss_chart([replace(run, losses=curves)], detector_colors([run]))
        return [axes for axes in panels if axes.lines]

    (panel,) = panels_of(loss_ld=[2.0, 1.0], loss_kd=[0.0, 0.0])
    assert panel.get_title() == "main LD"
    assert panels_of() == []
    dots = [panels_of(loss=values)[0].lines[0].get_marker() for values in ([2.0], [2.0, 2.0])]
    assert dots == ["o", "None"]
