"""A recipe made short: fewer images, epochs and images in a batch; everything else stays as it is."""

import csv
import json
from pathlib import Path
from typing import Any

from pipeline.core.environment import dataset_root
from pipeline.core.paths import SPLITS, RunPaths
from pipeline.core.progress import describe_bytes
from pipeline.cost.overrides import Params, lookup
from pipeline.datasets.config import PrepareDataConfig
from pipeline.student.config import StudentConfig
from pipeline.training.config import RANDOM_WEIGHTS, PrepareTeacherConfig, TrainConfig
from pipeline.training.pretrained import has_imagenet

NO_BOUND = 1e9
"""More than any of the errors that ``verify_cache`` measures."""
WATCHED = "pipeline/datasets/coco.py"
"""What DVC watches instead of a dataset's annotations: a rehearsal runs once."""


def shorten(
    data: PrepareDataConfig,
    teacher: PrepareTeacherConfig,
    students: dict[str, StudentConfig],
    recipe: Params,
    *,
    images: int,
    epochs: int,
    batch_size: int,
) -> tuple[Params, list[str]]:
    """What a rehearsal changes: values by dotted key, and sentences about what they mean.

    Args:
        data: Of the recipe.
        teacher: Of the recipe.
        students: Of the recipe.
        recipe: Its parameters.
        images: Of each split.
        epochs: Of every training.
        batch_size: Of every training, at most: there must be as many images, or there would be no step.
    """
    values: Params = {"root": ".", "file": "params.yaml"}
    notes: list[str] = []
    values |= _shorten_data(data, images)
    for section in ("prepare_teacher", "cache_teacher"):
        if planned := lookup(recipe, f"{section}.views.epochs"):
            values[f"{section}.views.epochs"] = min(planned, epochs)
    train_images = values[f"prepare_data.{'coco.train.limit' if data.coco else 'shapes.train_images'}"]
    values |= _take_teacher(teacher, notes)
    trainings = {f"students.{name}": (student.train, student.detector) for name, student in students.items()}
    if teacher.train and teacher.detector:
        trainings["prepare_teacher"] = teacher.train, teacher.detector
    for section, (train, detector) in trainings.items():
        values |= _shorten_training(f"{section}.train", train, train_images, epochs, batch_size, notes)
        if train.pretrained and not has_imagenet(detector.backbone):
            values[f"{section}.train.pretrained"] = False
            notes.append(f"No ImageNet weights of {detector.backbone} in torchvision's cache: random ones.")
    for name, student in students.items():
        if student.validation.enabled and student.validation.every != epochs:
            values[f"students.{name}.validation.every"] = epochs
    if teacher.train or values.get("prepare_teacher.source") == RANDOM_WEIGHTS:
        values |= {f"verify_cache.max_{name}": NO_BOUND for name in ("kl", "loss_error", "gradient_error")}
        notes.append("The teacher has learned next to nothing: verify_cache measures, and refuses nothing.")
    return values, list(dict.fromkeys(notes))


def _shorten_data(data: PrepareDataConfig, images: int) -> Params:
    values: Params = {}
    if data.coco:
        values |= {
            "prepare_data.source": WATCHED,
            "prepare_data.coco.root": _absolute(dataset_root(data.coco.root)),
        }
        for split in SPLITS:
            limit = getattr(data.coco, split).limit or images
            values[f"prepare_data.coco.{split}.limit"] = min(limit, images)
    if data.shapes:
        for key in ("train_images", "val_images"):
            values[f"prepare_data.shapes.{key}"] = min(getattr(data.shapes, key), images)
    return values


def _take_teacher(teacher: PrepareTeacherConfig, notes: list[str]) -> Params:
    """Name its file by an absolute path, or take random weights of its architecture."""
    if teacher.train:
        return {}
    # Of an ONNX file nothing else is known that could stand in for it: its stage will miss it.
    if Path(teacher.source).is_file() or teacher.detector is None:
        return {"prepare_teacher.source": _absolute(teacher.source)}
    notes.append(f"There is no {teacher.source}: the teacher is random, and every AP means nothing.")
    return {"prepare_teacher.source": RANDOM_WEIGHTS}


def _shorten_training(
    key: str, train: TrainConfig, images: int, epochs: int, batch_size: int, notes: list[str]
) -> Params:
    """Fewer epochs, with a warm-up and milestones in them; smaller batches, with a rate in proportion."""
    short, size = min(train.epochs, epochs), min(train.batch_size, batch_size, images)
    rate = train.learning_rate * size / train.batch_size
    if size != train.batch_size:
        notes.append(
            f"Batches of {size} instead of {train.batch_size} images, "
            f"learning rate {rate:g} instead of {train.learning_rate:g}."
        )
    changed: Params = {"epochs": short, "batch_size": size, "learning_rate": rate}
    if train.warmup_steps >= (steps := max(1, short * (images // size))):
        changed["warmup_steps"] = steps - 1
    milestones = [epoch for epoch in train.milestones if epoch < short]
    if len(milestones) < len(train.milestones):
        changed["milestones"] = milestones
    return {f"{key}.{name}": value for name, value in changed.items()}


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def differences(recipe: Params, values: Params) -> dict[str, tuple[Any, Any]]:
    """The recipe's value and that of the rehearsal, by dotted key, where they differ."""
    pairs = {key: (lookup(recipe, key), value) for key, value in values.items()}
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new}


def outcome(stage: str, root: Path) -> str:
    """What a stage, such as ``train_student ld``, has left in a run's folder, in a few figures."""
    run = RunPaths(root)
    kind, _, name = stage.partition(" ")
    match kind:
        case "prepare_data":
            return ", ".join(f"{count_images(run.manifest(split))} {split} images" for split in SPLITS)
        case "prepare_teacher" | "train_student":
            return _losses((run.student(name) if name else run.teacher) / "loss.csv")
        case "cache_teacher":
            statistics = _read(run.store / "zarr.json")["attributes"]["statistics"]
            return f"{statistics['views']} views of {describe_bytes(statistics['bytes_per_view'])}"
        case "verify_cache":
            fidelity = _read(run.fidelity)
            return f"loss off by {fidelity['loss_error']:.2g}, gradient by {fidelity['gradient_error']:.2g}"
        case "evaluate":
            return f"AP {_read(run.metrics(name))['AP']}"
    return describe_bytes(run.report.stat().st_size)


def count_images(manifest: Path) -> int:
    """Images that ``prepare_data`` has left of a split."""
    return len(_read(manifest)["images"])


def _losses(curve: Path) -> str:
    """Steps, and the loss of the first and of the last row; nothing of a teacher that was not trained."""
    with curve.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return "-"
    first, last = (float(row["loss"]) for row in (rows[0], rows[-1]))
    return f"{rows[-1]['step']} steps, loss {first:.4g} to {last:.4g}"


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
