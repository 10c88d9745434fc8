import json
from pathlib import Path

import pytest
from report_cases import DETECTOR, LD_LOSS, NO_LOSS, run_of, student

from pipeline.core.paths import RunPaths
from pipeline.detector.gfl import GFL
from pipeline.report.runs import (
    ReportError,
    baseline_of,
    choose_pair,
    count_parameters,
    difference,
    read_json,
    read_losses,
    read_precision_recall,
    read_run,
)


def test_baseline_has_the_same_detector_and_training() -> None:
    other_seed = run_of("other_seed", student(NO_LOSS, seed=1), 30.0)
    plain = run_of("plain", student(NO_LOSS), 20.0)
    distilled = run_of("ld", student(LD_LOSS), 22.5)
    students = [other_seed, distilled, plain]
    assert baseline_of(distilled, students) is plain
    assert difference(distilled.ap, plain.ap) == 2.5


def test_plain_student_has_no_baseline() -> None:
    runs = [run_of("one", student(NO_LOSS), 20.0), run_of("two", student(NO_LOSS), 21.0)]
    assert baseline_of(runs[1], runs) is None


def test_a_difference_to_what_is_unknown_is_unknown() -> None:
    assert difference(22.5, None) is difference(None, 22.5) is None


def test_pair_prefers_a_student_with_a_baseline() -> None:
    plain = run_of("plain", student(NO_LOSS), 20.0)
    small_gain = run_of("ld", student(LD_LOSS), 21.0)
    alone = run_of("alone", student(LD_LOSS, seed=3), 40.0)
    pair = choose_pair([alone, plain, small_gain])
    assert (pair.plain, pair.distilled) == (plain, small_gain)


@pytest.mark.parametrize(("loss", "kinds"), [(NO_LOSS, ["plain"]), (LD_LOSS, ["distilled"])])
def test_pair_of_a_single_student(loss: dict[str, float], kinds: list[str]) -> None:
    pair = choose_pair([run_of("only", student(loss), None)])
    assert [run.role for run in pair.runs] == kinds


def test_parameters_equal_those_of_the_real_model() -> None:
    expected = sum(parameter.numel() for parameter in GFL(DETECTOR).parameters())
    assert count_parameters(DETECTOR) == expected


def test_curves_are_read_by_threshold_and_by_term(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text("recall,precision,iou\n0.0,1.0,0.50\n1.0,0.5,0.50\n0.0,0.2,0.75\n")
    curves = read_precision_recall(path)
    assert list(curves) == ["0.50", "0.75"]
    assert curves["0.50"].y == [1.0, 0.5]
    path.write_text("step,loss_cls,loss\n20,1.5,2.0\n40,1.0,1.5\n")
    assert read_losses(path)["loss_cls"].x == [20.0, 40.0]
    path.write_text("step,loss\n")
    assert read_losses(path) == {}


def test_nan_and_null_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "evaluation/s").mkdir(parents=True)
    summary = '{"AP": NaN, "APs": null, "AP50": 1.5, "per_class": {"a": NaN}}'
    (tmp_path / "evaluation/s/summary.json").write_text(summary)
    (tmp_path / "evaluation/s/precision_recall.csv").write_text("recall,precision,iou\n")
    (tmp_path / "students/s").mkdir(parents=True)
    (tmp_path / "students/s/loss.csv").write_text("step,loss\n")
    (tmp_path / "students/s/timing.json").write_text(json.dumps({"seconds": 1}))
    run = read_run(RunPaths(tmp_path), "s", student(NO_LOSS))
    assert run.metrics == {"AP": None, "APs": None, "AP50": 1.5}
    assert run.per_class == {"a": None}


def test_missing_result_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"timing\.json.*dvc repro"):
        read_json(tmp_path / "timing.json")
