"""What the evaluated detectors left behind: numbers and curves, read into frozen dataclasses."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.core.config import structure
from pipeline.core.errors import PipelineError
from pipeline.core.paths import RunPaths
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL
from pipeline.student.config import StudentConfig


class ReportError(PipelineError):
    """A result that the report shows is missing, or is not what the stage before it writes."""


class Curve(NamedTuple):
    """Points of one line."""

    x: list[float]
    y: list[float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained and evaluated detector; AP is in percent, ``None`` where there is no such object."""

    name: str
    backbone: str
    """Of an ONNX file, its name; its ``parameters`` are not known."""
    parameters: int | None
    student: StudentConfig | None
    """Its section of ``params.yaml``; ``None`` for the teacher."""
    metrics: Mapping[str, float | None]
    per_class: Mapping[str, float | None]
    precision_recall: Mapping[str, Curve]
    """By IoU threshold (``"0.50"``, ...)."""
    losses: Mapping[str, Curve]
    timing: Mapping[str, Any]

    @property
    def distilled(self) -> bool:
        """Whether it is a student that reads the teacher."""
        return self.student is not None and self.student.loss.reads_teacher

    @property
    def ap(self) -> float | None:
        return self.metrics.get("AP")


def read_run(folder: RunPaths, name: str, student: StudentConfig | None) -> Run:
    """Results of a student, or of the teacher, which is no student; a ``PipelineError`` names a bad file."""
    trained = folder.student(name) if student else folder.teacher
    weights = folder.student_weights(name) if student else folder.teacher_weights
    described = weights.with_suffix(".json")
    description, parameters = read_json(described), None
    if "onnx" in description:
        backbone = str(description["onnx"]["name"])
    else:
        detector = structure(DetectorConfig, description.get("architecture"), str(described))
        backbone = detector.backbone
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in GFL(detector).parameters())
    metrics = read_json(folder.summary(name), per_class=dict)
    return Run(
        name=name,
        backbone=backbone,
        parameters=parameters,
        student=student,
        metrics=metrics,
        per_class=metrics.pop("per_class"),
        precision_recall=read_precision_recall(folder.evaluation(name) / "precision_recall.csv"),
        losses=read_losses(trained / "loss.csv"),
        timing=read_json(trained / "timing.json", seconds=float),
    )


def read_json(path: Path, **kinds: Callable[[Any], object]) -> dict[str, Any]:
    """A mapping that another stage wrote, with values of ``kinds``; a ``ReportError`` if it is none."""
    with result_of(path) as text:
        content = dict(json.loads(text))
        return content | {key: kind(content[key]) for key, kind in kinds.items()}


def read_precision_recall(path: Path) -> dict[str, Curve]:
    """Curves by IoU threshold, from rows of ``recall, precision, iou``."""
    curves: dict[str, Curve] = {}
    with result_of(path) as text:
        for row in csv.DictReader(text.splitlines()):
            curve = curves.setdefault(row["iou"], Curve([], []))
            curve.x.append(float(row["recall"]))
            curve.y.append(float(row["precision"]))
    return curves


def read_losses(path: Path) -> dict[str, Curve]:
    """Curves by loss term, from rows of ``step`` and one column a term; none if the run was too short."""
    with result_of(path) as text:
        rows = list(csv.DictReader(text.splitlines()))
        steps = [float(row.pop("step")) for row in rows]
        return {name: Curve(steps, [float(row[name]) for row in rows]) for row in rows[:1] for name in row}


@contextmanager
def result_of(path: Path) -> Iterator[str]:
    """The text of a file; a ``ReportError`` while it is read or understood names the file."""
    try:
        yield path.read_text()
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        problem = "it is not there" if isinstance(error, FileNotFoundError) else "it is damaged"
        raise ReportError(
            f"{path}: expected a result of an earlier stage, but {problem}; `dvc repro` or `dvc pull` gets it"
        ) from error


def baseline_of(run: Run, students: Sequence[Run]) -> Run | None:
    """The plain student that differs from a distilled one in its loss alone; ``None`` if there is none."""
    kinds = {each.name: each.student and (each.student.detector, each.student.train) for each in students}
    plain = (other for other in students if run.distilled and not other.distilled)
    return next((other for other in plain if kinds[other.name] == kinds[run.name]), None)


def choose_pair(students: Sequence[Run]) -> list[Run]:
    """The student of the highest AP, a distilled one with a baseline if there is one; the baseline first."""
    best = max(students, key=lambda run: (run.distilled, bool(baseline_of(run, students)), run.ap or 0))
    baseline = baseline_of(best, students)
    return [baseline, best] if baseline else [best]
