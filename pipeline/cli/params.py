"""A whole parameter file, section against section, before anything runs; loads no torch."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipeline.core.config import load_section, read_sections
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError
from pipeline.core.paths import RUNS, load_students, run_name
from pipeline.datasets.config import PrepareDataConfig
from pipeline.detector.config import DetectorConfig
from pipeline.evaluation.config import EvaluateConfig
from pipeline.fidelity.config import FidelityConfig, load_fidelity
from pipeline.onnx.description import OnnxDescription, read_onnx_description
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.config import PrepareTeacherConfig, TrainConfig
from pipeline.views.geometry import PAD_MULTIPLE, PerEpochViewsConfig, Views

KEYS = (
    *("name", "root", "file", "prepare_data", "prepare_teacher", "cache_teacher", "verify_cache"),
    *("student", "students", "evaluate"),
)

UNWATCHED = "pipeline/datasets/coco.py"
"""As ``prepare_data.source``: DVC does not look at the dataset, as in a rehearsal."""

Check = tuple[object, str, str, object]
"""Whether something is wrong; then the key, what was expected of it, and what it is."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A parameter file, section by section."""

    path: Path
    data: PrepareDataConfig
    teacher: PrepareTeacherConfig
    onnx: OnnxDescription | None
    """The teacher, if it is an ONNX file and its description is here."""
    cache: CacheConfig
    fidelity: FidelityConfig
    students: dict[str, StudentConfig]
    evaluate: EvaluateConfig


def check_params(path: Path) -> Recipe:
    """Check every key, and sections against each other; a ``ConfigError`` names file, section and key."""
    recipe = read_recipe(path)
    coco, shapes = recipe.data.coco, recipe.data.shapes
    images = shapes.train_images if shapes else coco.train.limit if coco else None
    _refuse(path, _place(path), _watched(recipe.data), _students(recipe), _trainings(recipe, images))
    return recipe


def check_machine(recipe: Recipe) -> None:
    """Refuse a recipe whose images or teacher are not here; a ``ConfigError`` names them and what to do."""
    if coco := recipe.data.coco:
        root = Path(dataset_root(coco.root))
        splits = (coco.train, coco.val)
        parts = [root / part for split in splits for part in ("", split.annotations, split.images)]
        if missing := [part for part in parts if not part.exists()]:
            raise ConfigError(
                f"{recipe.path}: prepare_data.coco: expected {missing[0]}, but there is none; link the "
                f"dataset's folder there (ln -s FOLDER {root}), name another, or give dvc "
                "--allow-missing where all that is made from it has been pulled"
            )
    source = Path(recipe.teacher.source)
    if recipe.teacher.train is None and not source.exists() and not source.is_relative_to(RUNS):
        raise ConfigError(
            f"{recipe.path}: prepare_teacher.source: expected {source}, but there is none; "
            "`ldp teacher import` makes it from a published checkpoint"
        )
    if recipe.onnx and not Path(recipe.onnx.file).is_file():
        raise ConfigError(f"{source}: file: expected {recipe.onnx.file}, but there is none")


def check_images(path: Path, images: int) -> None:
    """Refuse trainings of a checked file that so many images are too few for: before the first one runs."""
    _refuse(path, _trainings(read_recipe(path), images))


def read_recipe(path: Path) -> Recipe:
    """Every section of a parameter file, each by itself."""
    content = read_sections(path)
    run_name(content, path)
    if unknown := [key for key in content if key not in KEYS]:
        raise ConfigError(f"{path}: unknown section {unknown[0]!r}; expected {', '.join(KEYS)}")
    teacher = load_section(PrepareTeacherConfig, "prepare_teacher", path)
    described = teacher.is_onnx and Path(teacher.source).exists()
    return Recipe(
        path=path,
        data=load_section(PrepareDataConfig, "prepare_data", path),
        teacher=teacher,
        onnx=read_onnx_description(teacher.file) if described else None,
        cache=load_section(CacheConfig, "cache_teacher", path),
        fidelity=load_fidelity(path),
        students=load_students(StudentConfig, path),
        evaluate=load_section(EvaluateConfig, "evaluate", path),
    )


def trainings(recipe: Recipe) -> Iterator[tuple[str, TrainConfig, DetectorConfig, Views]]:
    """Each training that the stages run: its section, what is trained, and what it sees."""
    teacher = recipe.teacher
    if teacher.train and teacher.detector and teacher.views:
        yield "prepare_teacher.train", teacher.train, teacher.detector, teacher.views
    for name, student in recipe.students.items():
        yield f"students.{name}.train", student.train, student.detector, recipe.cache.views


def _refuse(path: Path, *checks: Iterable[Check]) -> None:
    for wrong, key, expected, got in chain(*checks):
        if wrong:
            raise ConfigError(f"{path}: {key}: expected {expected}, but got {got!r}")


def _place(path: Path) -> Iterator[Check]:
    """``file`` and ``root``, of which DVC makes its commands, say where the file is."""
    content = read_sections(path)
    for key, start, end in (("file", Path(), path), ("root", path.parent, Path())):
        value = content.get(key)
        wrong = not isinstance(value, str) or (start / value).resolve() != end.resolve()
        yield wrong, key, repr(os.path.relpath(end, start)), value


def _watched(data: PrepareDataConfig) -> Iterator[Check]:
    """What DVC watches is the dataset or its annotations, a part of them, or has them as a part."""
    if (coco := data.coco) and data.source != UNWATCHED:
        parts = [f"{coco.root}/{name}" for name in ("", coco.train.annotations, coco.val.annotations)]
        # By name, or by what the names are links to: a folder of images may lie elsewhere.
        pairs = [
            (Path(path(data.source.removesuffix(".dvc"))), Path(path(part)))
            for path in (os.path.normpath, os.path.realpath)
            for part in parts
        ]
        watched = any(source.is_relative_to(part) or part.is_relative_to(source) for source, part in pairs)
        needs = f"what DVC is to watch: {coco.root} or a part of it"
        yield not watched, "prepare_data.source", needs, data.source


def _students(recipe: Recipe) -> Iterator[Check]:
    """Students predict what their teacher predicts, read what is stored, and are validated on one split."""
    shared = (read_sections(recipe.path)["student"].get("validation") or {}).get("split")
    yield shared is None, "student.validation.split", "'train' or 'val' for all students", None
    detector, onnx = recipe.teacher.detector, recipe.onnx
    taught: dict[str, int] = {}
    if detector:
        taught = {"levels": detector.levels, "reg_max": detector.reg_max}
        if recipe.teacher.train:  # a given teacher may know more classes than the dataset has
            taught["num_classes"] = detector.num_classes
    elif onnx:
        taught = {"levels": len(onnx.points.strides), "reg_max": onnx.edges.bins - 1}
    for name, student in recipe.students.items():
        where, loss, cache = f"students.{name}", student.loss, recipe.cache
        needs = f"{{floor: 0.005}} for the terms bckd_cls and bckd_box of {where}"
        yield loss.reads_dense and cache.dense is None, "cache_teacher.dense", needs, None
        lacking, needs = not cache.valuable_classes, f"true for the term vlr_kd of {where}"
        yield loss.vlr_kd_weight and lacking, "cache_teacher.valuable_classes", needs, False
        for key in ("kd_weight", "vlr_kd_weight"):
            weight = getattr(loss, key)
            needs = "0 for one class, of which a softmax is always 1; bckd_cls_weight is of sigmoids"
            yield student.detector.num_classes == 1 and weight, f"{where}.loss.{key}", needs, weight
        for key, value in taught.items():
            got = getattr(student.detector, key)
            yield got != value, f"{where}.detector.{key}", f"{value}, as its teacher has", got
        split = student.validation.split
        yield split != shared, f"{where}.validation.split", f"student.validation.split {shared!r}", split


def _trainings(recipe: Recipe, images: int | None) -> Iterator[Check]:
    """A training has views, images and steps enough; an ONNX teacher takes the views."""
    for where, train, _, views in trainings(recipe):
        size = train.batch_size
        frozen = train.frozen_stages >= 0 and not train.pretrained
        yield frozen, f"{where}.frozen_stages", "-1 for a backbone of random weights", train.frozen_stages
        if isinstance(views, PerEpochViewsConfig):
            needs = f"at most the {views.epochs} of views"
            yield train.epochs > views.epochs, f"{where}.epochs", needs, train.epochs
        # BatchNorm in training has no variance of one value: that of a batch of one cell.
        one_cell = size == 1 and not train.norm_eval and min(map(min, views.scales)) <= PAD_MULTIPLE
        needs = f"2 or more where a view has {PAD_MULTIPLE} px, one cell of the backbone's last stage"
        yield one_cell, f"{where}.batch_size", needs, size
        if images is not None:
            yield size > images, f"{where}.batch_size", f"at most the {images} training images", size
            steps = train.epochs * (images // size)
            needs = f"fewer than the {steps} steps of the training"
            yield train.warmup_steps >= steps, f"{where}.warmup_steps", needs, train.warmup_steps
    if recipe.onnx and recipe.onnx.input.size:
        size_wh, cached = recipe.onnx.input.size[::-1], recipe.cache.views.scales
        tested = (recipe.evaluate.scale,)
        for key, scales in {"cache_teacher.views.scales": cached, "evaluate.scale": tested}.items():
            needs = f"{list(size_wh)}, the teacher's input"
            yield set(scales) != {size_wh}, key, needs, list(map(list, scales))
