"""``ldp rehearse``: every stage of a recipe, on a few images and steps, before it runs for days."""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipeline.cli import options
from pipeline.cli.options import CHANGES, RECIPE, Params, argument, command
from pipeline.cli.params import UNWATCHED, Recipe, check_params
from pipeline.core.config import PARAMS
from pipeline.core.environment import Environment, dataset_root
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.paths import SPLITS
from pipeline.datasets.config import PrepareDataConfig
from pipeline.fidelity.config import FidelityBounds
from pipeline.training.config import RANDOM_WEIGHTS, TrainConfig
from pipeline.training.pretrained import has_imagenet

CODE = Path(__file__).parents[2]
COPIED = ("pipeline", "stages", "dvc.yaml", ".dvcignore")

NO_BOUND = 1e9
"""More than any of the errors that ``verify_cache`` measures."""

logger = logging.getLogger(__name__)


@command(
    RECIPE,
    CHANGES,
    argument("--images", type=int, default=4, metavar="N", help="of each split, the first by id; default: 4"),
    argument("--epochs", type=int, default=1, metavar="E", help="of every training; default: 1"),
    argument("--keep", type=Path, metavar="FOLDER", help="run in this new folder, and keep it"),
)
def rehearse_command(arguments: argparse.Namespace) -> None:
    """Lets DVC run all stages of a recipe in a copy of this tree, and prints their metrics.

    They run at the recipe's resolution, with its detectors, losses, optimizer and precision, on a few images
    for a few steps. Where the teacher's weights file is missing, random weights of its architecture stand in
    for it. The workspace is not touched.
    """
    options.require_least(arguments, images=1, epochs=1)
    keep: Path | None = arguments.keep
    if keep and keep.exists():
        raise ConfigError(f"--keep: expected a new folder, but {keep} is there; name another")
    with options.copied_recipe(arguments) as (recipe, copy):
        place = {"root": str(Path.cwd()), "file": str(copy)}
        checked = check_params(options.write_params(options.override(recipe, place), copy))
        with nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="ldp-rehearse-") as folder:
            code = rehearse(recipe, checked, Path(folder).absolute(), arguments.images, arguments.epochs)
    if code:
        raise PipelineError(
            f"{arguments.recipe}: a stage failed, whose name and error stand above; if it was killed for "
            "memory, LDP_MICRO_BATCH=1 trains with less of it"
        )


def rehearse(recipe: Params, checked: Recipe, folder: Path, images: int, epochs: int) -> int:
    """Run all stages of a recipe, or those up to the first that fails; returns DVC's exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        copy = shutil.copytree if (CODE / name).is_dir() else shutil.copy
        copy(CODE / name, folder / name)
    _dvc(folder, "init", "--no-scm", "--quiet")
    values, notes = shorten(checked, recipe, images, epochs)
    options.write_params(options.override(recipe, values), folder / PARAMS)
    lines = [
        f"  {key}: {'the default' if old is None else old} -> {new}"
        for key, (old, new) in differences(recipe, values).items()
    ]
    logger.info("%s", "\n".join(["what is not as in the recipe:", *lines, *notes]))
    return _dvc(folder, "repro") or _dvc(folder, "metrics", "show")


def _dvc(folder: Path, *arguments: str) -> int:
    """Run DVC to its end."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    settings = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    with subprocess.Popen(command, cwd=folder, env=settings) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal interrupts DVC, too: its folder must not go before it has ended.
            process.wait()
            raise


def shorten(checked: Recipe, recipe: Params, images: int, epochs: int) -> tuple[Params, list[str]]:
    """What a rehearsal changes: values by dotted key, and sentences about what they mean."""
    data, teacher, processes = checked.data, checked.teacher, Environment.read().train_processes
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
        changed = _shorten_training(train, images // processes * processes or images, epochs)
        if train.pretrained and not has_imagenet(detector.backbone):
            changed |= {"pretrained": False, "frozen_stages": -1}
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
        values |= {"prepare_data.source": UNWATCHED, "prepare_data.coco.root": root}
        values["prepare_data.keep_empty_images"] = True  # else there may be fewer than a batch has
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
