"""The whole way under DVC: images to report, nothing twice. `.ci/run` does the same with real processes."""

import json
import shutil
from pathlib import Path

import pytest
from dvc_in_process import repro
from finished import FOLDER, STUDENTS, call, files_below, without_times, working_in
from project import edit_params

from recipes import LD, set_value

EVERY_STAGE = {
    *("check_recipe", "prepare_data", "prepare_teacher", "evaluate_teacher", "cache_teacher", "verify_cache"),
    "report",
    *(f"{stage}_student@{name}" for stage in ("train", "evaluate") for name in STUDENTS),
}


@pytest.mark.slow
def test_from_nothing_every_stage_runs_once_to_the_same_bytes(own_repository: Path) -> None:
    before = without_times(files_below(own_repository / "runs"))
    shutil.rmtree(own_repository / "runs")
    shutil.rmtree(own_repository / ".dvc/cache")
    (own_repository / "dvc.lock").unlink()
    assert repro(own_repository) == EVERY_STAGE
    assert without_times(files_below(own_repository / "runs")) == before
    assert repro(own_repository) == set()


@pytest.mark.slow
def test_going_back_to_old_parameters_computes_nothing(own_repository: Path) -> None:
    for weight, expected in ((0.5, {"train_student@ld", "evaluate_student@ld", "report"}), (1.0, set())):
        edit_params(
            own_repository, lambda values, to=weight: set_value(values, (*LD, "loss", "ld_weight"), to)
        )
        assert repro(own_repository) == expected


def test_every_detector_has_its_metrics(finished_project: Path) -> None:
    for name in (*STUDENTS, "teacher"):
        metrics = json.loads((finished_project / FOLDER.metrics(name)).read_text())
        assert {"AP", "AP50", "AP75"} <= metrics.keys()


def test_students_train_without_the_teachers_files(own_project: Path) -> None:
    shutil.rmtree(own_project / FOLDER.teacher)
    weights = own_project / FOLDER.student_weights("ld")
    before = weights.read_bytes()
    weights.unlink()
    with working_in(own_project):
        assert call("train_student ld").code == 0
    assert weights.read_bytes() == before
