"""``ldp rehearse``: every stage of a recipe, on a few images and steps, before it runs for days."""

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipeline.cli.options import CHANGES, RECIPE, argument, command, copied_recipe, override, require_least
from pipeline.cli.params import UNWATCHED, Recipe, check_params, trainings
from pipeline.core.config import MAX_NUMBER, PARAMS, Section, dump_yaml, read_sections
from pipeline.core.environment import Environment, dataset_root
from pipeline.core.errors import ConfigError, PipelineError
from pipeline.core.paths import SPLITS
from pipeline.fidelity.config import BOUNDED
from pipeline.training.config import RANDOM_WEIGHTS, TrainConfig
from pipeline.training.pretrained import has_imagenet
from pipeline.views.geometry import PerEpochViewsConfig

CODE = Path(__file__).parents[2]

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

    At the recipe's resolution, with its detectors, losses, optimizer and precision, on a few images for a few
    steps. Random weights of its architecture stand in for a teacher's weights file that is missing. The
    workspace is not touched.
    """
    require_least(arguments, images=1, epochs=1)
    if (keep := arguments.keep) and keep.exists():
        raise ConfigError(f"--keep: expected a new folder, but {keep} is there; name another")
    with copied_recipe(arguments) as copy:
        params = read_sections(copy)
        changes = shorten(check_params(copy), arguments.images, arguments.epochs)
    values = {"root": ".", "file": "params.yaml"} | {key: new for key, (_, new) in changes.items()}
    with nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="ldp-rehearse-") as name:
        folder = Path(name).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for part in ("pipeline", "stages"):
            shutil.copytree(CODE / part, folder / part)
        for part in ("dvc.yaml", ".dvcignore"):
            shutil.copy(CODE / part, folder)
        (folder / PARAMS).write_text(dump_yaml(override(params, values)))
        lines = [f"\n  {key}: {old} -> {new}" for key, (old, new) in changes.items()]
        logger.info("not as in the recipe; with random weights, AP means nothing:%s", "".join(lines))
        _dvc(folder, "init", "--no-scm", "--quiet")
        failed = _dvc(folder, "repro") or _dvc(folder, "metrics", "show")
    if failed:
        raise PipelineError(
            f"{arguments.recipe}: a stage failed, whose name and error stand above; if it was killed for "
            "memory, LDP_MICRO_BATCH=1 trains with less of it"
        )


def _dvc(folder: Path, *arguments: str) -> int:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
    with subprocess.Popen([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=settings) as process:
        try:
            return process.wait()
        finally:  # interrupted, with DVC: its folder must not go before it has ended
            process.wait()


def shorten(recipe: Recipe, images: int, epochs: int) -> dict[str, tuple[Any, Any]]:
    """The recipe's value and that of a rehearsal, where they differ, by dotted key."""
    changes: dict[str, tuple[Any, Any]] = {}

    def change(section: str, config: Section, **values: object) -> None:
        pairs = {f"{section}.{name}": (getattr(config, name), new) for name, new in values.items()}
        changes.update((key, (old, new)) for key, (old, new) in pairs.items() if old != new)

    data, teacher = recipe.data, recipe.teacher
    if data.coco:
        # Of few images none may have an object, and fewer than a batch has would be left.
        change("prepare_data", data, source=UNWATCHED, keep_empty_images=True)
        change("prepare_data.coco", data.coco, root=str(Path(dataset_root(data.coco.root)).absolute()))
        for split, files in zip(SPLITS, (data.coco.train, data.coco.val), strict=True):
            change(f"prepare_data.coco.{split}", files, limit=min(files.limit or images, images))
    if data.shapes:
        few = {key: min(getattr(data.shapes, key), images) for key in ("train_images", "val_images")}
        change("prepare_data.shapes", data.shapes, **few)
    for section, views in (("prepare_teacher", teacher.views), ("cache_teacher", recipe.cache.views)):
        if isinstance(views, PerEpochViewsConfig):
            change(f"{section}.views", views, epochs=min(views.epochs, epochs))
    processes = Environment.read().train_processes
    for where, train, detector, _ in trainings(recipe):
        change(where, train, **_short_schedule(train, images // processes * processes or images, epochs))
        if train.pretrained and not has_imagenet(detector.backbone):
            change(where, train, pretrained=False, frozen_stages=-1)
    for name, student in recipe.students.items():
        if student.validation.split == "val":
            change(f"students.{name}.validation", student.validation, every=epochs)
    # Of an ONNX file nothing else is known that could stand in for it: its stage will miss it.
    given = not teacher.train and (Path(teacher.source).exists() or teacher.is_onnx)
    if not teacher.train:
        source = str(Path(teacher.source).absolute()) if given else RANDOM_WEIGHTS
        change("prepare_teacher", teacher, source=source)
    if not given:
        change("verify_cache", recipe.fidelity, **dict.fromkeys(BOUNDED, MAX_NUMBER))
    return changes


def _short_schedule(train: TrainConfig, images: int, epochs: int) -> dict[str, object]:
    """Fewer epochs, with a warm-up and milestones in them; smaller batches, with a rate in proportion."""
    short, size = min(train.epochs, epochs), min(train.batch_size, images)
    return {
        "epochs": short,
        "batch_size": size,
        "learning_rate": train.learning_rate * (size / train.batch_size),
        "warmup_steps": min(train.warmup_steps, max(1, short * (images // size)) - 1),
        "milestones": tuple(epoch for epoch in train.milestones if epoch < short),
    }
