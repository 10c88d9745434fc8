"""The tiny project as a report meets it, and runs that have nothing but an AP."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finished import FOLDER, STUDENTS

from pipeline.core.config import merge, structure
from pipeline.core.paths import TEACHER, RunPaths
from pipeline.detector.config import DetectorConfig
from pipeline.report.runs import Curve, Run
from pipeline.student.config import StudentConfig
from recipes import tiny_params

PARAMS = tiny_params()
STUDENT = merge(PARAMS["student"], PARAMS["students"]["plain"])
DETECTOR = structure(DetectorConfig, STUDENT["detector"], "detector")
NO_LOSS = {
    "ld_weight": 0.0,
    "vlr_weight": 0.0,
    "ld_temperature": 10.0,
    "kd_weight": 0.0,
    "kd_temperature": 2.0,
}
LD_LOSS = {**NO_LOSS, "ld_weight": 0.25, "vlr_weight": 0.25}


def student(loss: Mapping[str, float], seed: int = 0) -> StudentConfig:
    train = {**STUDENT["train"], "seed": seed}
    return structure(StudentConfig, {**STUDENT, "train": train, "loss": loss}, "student")


def run_of(name: str, config: StudentConfig | None, ap: float | None) -> Run:
    """A run with nothing but an AP."""
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


def bare_project(
    finished: Path, folder: Path, students: Iterable[str], metrics: Mapping[str, Any]
) -> RunPaths:
    """A copy in which nothing was detected, and no loss curve has a row; its run, relative to the folder."""
    shutil.copytree(finished, folder, symlinks=True)
    run = RunPaths(folder / FOLDER.root)
    for name in set(students) - set(STUDENTS):
        for folder_of in (run.student, run.evaluation):
            shutil.copytree(folder_of("ld"), folder_of(name))
    for name in (TEACHER, *students):
        run.summary(name).write_text(json.dumps(metrics))
        (run.evaluation(name) / "detections.json").write_text("[]\n")
    for curve in run.root.rglob("loss.csv"):
        curve.write_text("step,loss\n")
    return FOLDER
