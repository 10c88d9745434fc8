"""What a stage has left in its run's folder, in a few figures."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.core.paths import TEACHER, RunPaths
from pipeline.core.progress import describe_bytes
from pipeline.store.tools.summary import summarize
from pipeline.views.manifest import read_manifest

Figures = dict[str, int | float | None]
"""By name; sizes are in bytes and their names begin with :data:`BYTES`."""

BYTES = "bytes"


def figures_of(stage: str, folder: RunPaths, student: str | None) -> Figures:
    """What there is to say of a stage of ``dvc.yaml`` that has run.

    Args:
        stage: Its name.
        folder: Where it has run.
        student: Of a stage that every student has.
    """
    if student is not None:
        return {"train_student": _student, "evaluate_student": _evaluated}[stage](folder, student)
    of_stage: Mapping[str, Callable[[RunPaths], Figures]] = {
        "prepare_data": _data,
        "prepare_teacher": _teacher,
        "evaluate_teacher": lambda run: _evaluated(run, TEACHER),
        "cache_teacher": _store,
        "verify_cache": _fidelity,
        "report": lambda run: {BYTES: run.report.stat().st_size},
    }
    return of_stage[stage](folder)


def _data(folder: RunPaths) -> Figures:
    train, val = read_manifest(folder.manifest("train")), read_manifest(folder.manifest("val"))
    return {
        "training images": len(train.images),
        "boxes": sum(len(image.annotations) for image in train.images),
        "validation images": len(val.images),
    }


def _teacher(folder: RunPaths) -> Figures:
    files = folder.teacher_weights.parent.iterdir()
    return {BYTES: sum(file.stat().st_size for file in files), **_losses(folder.teacher / "loss.csv")}


def _store(folder: RunPaths) -> Figures:
    store = summarize(folder.store)
    return {
        "views": store.views,
        "points a view": round(store.points.per_view),
        BYTES: store.bytes.total,
        f"{BYTES} a view": round(store.bytes.per_view),
    }


def _fidelity(folder: RunPaths) -> Figures:
    fidelity = _read(folder.fidelity)
    return {
        "views": fidelity["views"],
        "LD loss off by": fidelity["loss_error"],
        "its gradient": fidelity["gradient_error"],
    }


def _student(folder: RunPaths, name: str) -> Figures:
    return _losses(folder.student(name) / "loss.csv")


def _losses(curve: Path) -> Figures:
    """Steps, and the loss of the first and of the last row; nothing of a teacher that was not trained."""
    with curve.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    first, last = rows[0], rows[-1]
    return {
        "steps": int(last["step"]),
        "first loss": float(first["loss"]),
        "last loss": float(last["loss"]),
    }


def _evaluated(folder: RunPaths, name: str) -> Figures:
    found = _read(folder.evaluation(name) / "detections.json")
    return {"AP": _read(folder.metrics(name))["AP"], "detections": len(found)}


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def describe(figures: Figures) -> str:
    """Figures as one line."""
    return ", ".join(f"{name} {_figure(name, value)}" for name, value in figures.items())


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.startswith(BYTES):
        return describe_bytes(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
