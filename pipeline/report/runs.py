"""What the evaluated detectors left behind: numbers and curves, read into frozen dataclasses."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from pipeline.core.config import structure
from pipeline.core.errors import PipelineError
from pipeline.core.paths import RunPaths
from pipeline.detector.config import DetectorConfig
from pipeline.detector.gfl import GFL, read_description
from pipeline.student.config import StudentConfig

Role = Literal["teacher", "plain", "distilled"]
"""A plain student is one whose distillation weights are all zero."""


class ReportError(PipelineError):
    """A result that the report shows is missing, or is not what the stage before it writes."""


class Curve(NamedTuple):
    """Points of one line."""

    x: list[float]
    y: list[float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained and evaluated detector."""

    name: str
    """As in ``students`` of ``params.yaml``, or ``TEACHER``."""
    role: Role
    backbone: str
    """What kind of detector it is, in a word: the name of a teacher that is an ONNX file."""
    parameters: int | None
    """Learned numbers of the detector; not known of an ONNX file."""
    student: StudentConfig | None
    """Its section of ``params.yaml``; ``None`` for the teacher."""
    metrics: Mapping[str, float | None]
    """Percent by name (``AP``, ``AP50``, ...); ``None`` where there is no such object."""
    per_class: Mapping[str, float | None]
    """AP in percent by name of the category."""
    precision_recall: Mapping[str, Curve]
    """Precision over recall by IoU threshold (``"0.50"``, ...)."""
    losses: Mapping[str, Curve]
    """Every loss term over the training step."""
    timing: Mapping[str, Any]
    """``seconds`` and what else its training stage recorded."""

    @property
    def ap(self) -> float | None:
        """The metric that detectors are compared by."""
        return self.metrics.get("AP")


def read_run(folder: RunPaths, name: str, student: StudentConfig | None) -> Run:
    """Results of a student, or of the teacher, which is no student; a ``PipelineError`` names a bad file."""
    detector = student.detector if student else read_teacher(folder)
    trained = folder.student(name) if student else folder.teacher
    metrics = read_json(folder.summary(name))
    with _text_of(folder.summary(name)):
        per_class = metrics.pop("per_class")
    timing = read_json(trained / "timing.json")
    with _text_of(trained / "timing.json"):
        float(timing["seconds"])
    return Run(
        name=name,
        role="teacher" if student is None else "distilled" if student.loss.reads_teacher else "plain",
        backbone=detector if isinstance(detector, str) else detector.backbone,
        parameters=None if isinstance(detector, str) else count_parameters(detector),
        student=student,
        metrics=metrics,
        per_class=per_class,
        precision_recall=read_precision_recall(folder.evaluation(name) / "precision_recall.csv"),
        losses=read_losses(trained / "loss.csv"),
        timing=timing,
    )


def read_teacher(folder: RunPaths) -> DetectorConfig | str:
    """The teacher's architecture, or the name of an ONNX file."""
    described = folder.teacher_weights.with_suffix(".json")
    description = read_description(folder.teacher_weights)
    with _text_of(described):
        if "onnx" in description:
            return str(description["onnx"]["name"])
    return structure(DetectorConfig, description.get("architecture"), str(described))


def read_json(path: Path) -> dict[str, Any]:
    """A mapping that another stage wrote, NaN as None; a ``ReportError`` if it is missing or damaged."""
    with _text_of(path) as text:
        return dict(json.loads(text, parse_constant=lambda _: None))


def read_precision_recall(path: Path) -> dict[str, Curve]:
    """Curves by IoU threshold, from rows of ``recall, precision, iou``."""
    curves: dict[str, Curve] = {}
    with _text_of(path) as text:
        for row in csv.DictReader(text.splitlines()):
            curve = curves.setdefault(row["iou"], Curve([], []))
            curve.x.append(float(row["recall"]))
            curve.y.append(float(row["precision"]))
    return curves


def read_losses(path: Path) -> dict[str, Curve]:
    """Curves by loss term, from rows of ``step`` and one column a term; none if the run was too short."""
    with _text_of(path) as text:
        rows = list(csv.DictReader(text.splitlines()))
        columns = {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}
    steps = columns.pop("step", [])
    return {name: Curve(steps, values) for name, values in columns.items()}


@contextmanager
def _text_of(path: Path) -> Iterator[str]:
    """The text of a file; an error while it is read or understood names the file."""
    try:
        yield path.read_text()
    except FileNotFoundError as error:
        raise ReportError(
            f"{path}: expected a result of an earlier stage; `dvc repro` makes it, `dvc pull` fetches it"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(
            f"{path}: expected a result of an earlier stage, but it is damaged; run `dvc repro`"
        ) from error


def count_parameters(detector: DetectorConfig) -> int:
    """Learned numbers of an architecture, from a skeleton without values."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GFL(detector).parameters())


def baseline_of(run: Run, students: Sequence[Run]) -> Run | None:
    """The plain student that differs from a distilled one in its loss alone; ``None`` if there is none."""
    if run.role != "distilled" or run.student is None:
        return None
    kind = (run.student.detector, run.student.train)
    plain = [(other, other.student) for other in students if other.role == "plain" and other.student]
    return next((other for other, config in plain if (config.detector, config.train) == kind), None)


def difference(value: float | None, other: float | None) -> float | None:
    """What ``value`` has more than ``other``; ``None`` if either is unknown."""
    return None if value is None or other is None else value - other


class Pair(NamedTuple):
    """The two students that the page looks at closely; either may not exist."""

    plain: Run | None
    distilled: Run | None

    @property
    def runs(self) -> list[Run]:
        """Those that exist, the plain one first."""
        return [run for run in self if run]


def choose_pair(students: Sequence[Run]) -> Pair:
    """The distilled student of the highest AP, one with a baseline before one without, and its baseline."""
    distilled = [run for run in students if run.role == "distilled"]
    plain = [run for run in students if run.role == "plain"]
    if not distilled:
        return Pair(plain=max(plain, key=_rank, default=None), distilled=None)
    best = max(distilled, key=lambda run: (baseline_of(run, students) is not None, _rank(run)))
    return Pair(plain=baseline_of(best, students) or max(plain, key=_rank, default=None), distilled=best)


def _rank(run: Run) -> float:
    return -math.inf if run.ap is None else run.ap
