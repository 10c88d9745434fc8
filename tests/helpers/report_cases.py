"""Runs of a report that have nothing but an AP."""

from teacher_cases import DETECTOR

from pipeline.report.runs import Curve, Run
from pipeline.student.config import StudentConfig


def run_of(name: str, config: StudentConfig | None, ap: float | None) -> Run:
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
