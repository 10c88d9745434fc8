from pathlib import Path

from report_cases import run_of
from training_cases import FULL, PLAIN, student

from pipeline.report.runs import baseline_of, choose_pair, read_losses, read_precision_recall


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
