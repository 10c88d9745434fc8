"""A recipe made short: fewer images, epochs and images in a batch; everything else stays as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cli.options import Params
from pipeline.cli.params import Recipe
from pipeline.core.environment import dataset_root
from pipeline.core.paths import SPLITS
from pipeline.datasets.config import PrepareDataConfig
from pipeline.fidelity.config import FidelityBounds
from pipeline.training.config import RANDOM_WEIGHTS, TrainConfig
from pipeline.training.pretrained import has_imagenet

NO_BOUND = 1e9
"""More than any of the errors that ``verify_cache`` measures."""
WATCHED = "pipeline/datasets/coco.py"
"""What DVC watches instead of a dataset's annotations: a rehearsal runs once."""


def shorten(
    checked: Recipe, recipe: Params, *, images: int, epochs: int, train_images: int
) -> tuple[Params, list[str]]:
    """What a rehearsal changes: values by dotted key, and sentences about what they mean.

    No batch is larger than the ``train_images``, which may be fewer than the ``images`` of a split.
    """
    data, teacher = checked.data, checked.teacher
    values: Params = {"root": ".", "file": "params.yaml", **_shorten_data(data, images)}
    notes: list[str] = []
    for section in ("prepare_teacher", "cache_teacher"):
        if planned := lookup(recipe, f"{section}.views.epochs"):
            values[f"{section}.views.epochs"] = min(planned, epochs)
    if not teacher.train:
        # Of an ONNX file nothing else is known that could stand in for it: its stage will miss it.
        given = Path(teacher.source).exists() or teacher.detector is None
        values["prepare_teacher.source"] = str(Path(teacher.source).absolute()) if given else RANDOM_WEIGHTS
        if not given:
            notes.append(f"There is no {teacher.source}: the teacher is random, and every AP means nothing.")
    trainings = {f"students.{name}": (one.train, one.detector) for name, one in checked.students.items()}
    if teacher.train and teacher.detector:
        trainings["prepare_teacher"] = teacher.train, teacher.detector
    for section, (train, detector) in trainings.items():
        changed = _shorten_training(train, train_images, epochs)
        if changed["batch_size"] != train.batch_size:
            notes.append(
                f"Batches of {changed['batch_size']} instead of {train.batch_size} images, "
                f"learning rate {changed['learning_rate']:g} instead of {train.learning_rate:g}."
            )
        if train.pretrained and not has_imagenet(detector.backbone):
            changed["pretrained"] = False
            notes.append(f"No ImageNet weights of {detector.backbone} in torchvision's cache: random ones.")
        values |= {f"{section}.train.{name}": value for name, value in changed.items()}
    for name, student in checked.students.items():
        if student.validation.enabled and student.validation.every != epochs:
            values[f"students.{name}.validation.every"] = epochs
    if teacher.train or values.get("prepare_teacher.source") == RANDOM_WEIGHTS:
        bounds = [name for name in FidelityBounds.__struct_fields__ if name.startswith("max_")]
        values |= {f"verify_cache.{name}": NO_BOUND for name in bounds}
        notes.append("The teacher has learned next to nothing: verify_cache measures, and refuses nothing.")
    return values, list(dict.fromkeys(notes))


def _shorten_data(data: PrepareDataConfig, images: int) -> Params:
    values: Params = {}
    if data.coco:
        root = str(Path(dataset_root(data.coco.root)).absolute())
        values |= {"prepare_data.source": WATCHED, "prepare_data.coco.root": root}
        for split in SPLITS:
            limit = getattr(data.coco, split).limit or images
            values[f"prepare_data.coco.{split}.limit"] = min(limit, images)
    if data.shapes:
        for key in ("train_images", "val_images"):
            values[f"prepare_data.shapes.{key}"] = min(getattr(data.shapes, key), images)
    return values


def _shorten_training(train: TrainConfig, images: int, epochs: int) -> Params:
    """Fewer epochs, with a warm-up and milestones in them; smaller batches, with a rate in proportion."""
    short, size = min(train.epochs, epochs), min(train.batch_size, images)
    rate = train.learning_rate * size / train.batch_size
    changed: Params = {"epochs": short, "batch_size": size, "learning_rate": rate}
    if train.warmup_steps >= (steps := max(1, short * (images // size))):
        changed["warmup_steps"] = steps - 1
    milestones = [epoch for epoch in train.milestones if epoch < short]
    if len(milestones) < len(train.milestones):
        changed["milestones"] = milestones
    return changed


def differences(recipe: Params, values: Params) -> dict[str, tuple[Any, Any]]:
    """The recipe's value and that of the rehearsal, by dotted key, where they differ."""
    pairs = {key: (lookup(recipe, key), value) for key, value in values.items()}
    return {key: (old, new) for key, (old, new) in pairs.items() if old != new}


def lookup(params: Params, key: str) -> Any:
    """The value at a dotted key, for a student that of all students where it has none; ``None`` if absent."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    students, _, rest = key.partition(".")
    if value is None and students == "students" and "." in rest:
        return lookup(params, f"student.{rest.partition('.')[2]}")
    return value
