"""A whole parameter file, section against section, before anything runs; loads no torch."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.config import load_section, read_sections
from pipeline.core.environment import dataset_root
from pipeline.core.errors import ConfigError
from pipeline.core.paths import RUNS, load_students, run_name
from pipeline.datasets.config import PrepareDataConfig
from pipeline.evaluation.config import EvaluateConfig
from pipeline.fidelity.config import load_fidelity
from pipeline.onnx.description import OnnxDescription, read_onnx_description
from pipeline.student.config import StudentConfig
from pipeline.teacher.config import CacheConfig
from pipeline.training.config import PrepareTeacherConfig, TrainConfig
from pipeline.views.geometry import PAD_MULTIPLE, PerEpochViewsConfig, Views

SECTIONS = (
    "prepare_data",
    "prepare_teacher",
    "cache_teacher",
    "verify_cache",
    "student",
    "students",
    "evaluate",
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A parameter file whose every section is what its class asks for."""

    path: Path
    data: PrepareDataConfig
    teacher: PrepareTeacherConfig
    onnx: OnnxDescription | None
    """The teacher, if it is an ONNX file and its description is here."""
    cache: CacheConfig
    students: dict[str, StudentConfig]
    evaluate: EvaluateConfig


def check_params(path: Path) -> Recipe:
    """Check a parameter file from its first key to its last, and its sections against each other.

    Raises:
        ConfigError: Names the file, the section and the key.
    """
    recipe = read_recipe(path)
    _check_place(path)
    _check_students(recipe)
    for where, train, views in _trainings(recipe):
        if isinstance(views, PerEpochViewsConfig) and train.epochs > views.epochs:
            raise _mismatch(path, f"{where}.epochs", f"at most the {views.epochs} of views", train.epochs)
        # BatchNorm in training has no variance of one value: that of a batch of one cell.
        if train.batch_size == 1 and not train.norm_eval and min(map(min, views.scales)) <= PAD_MULTIPLE:
            expected = f"2 or more where a view has {PAD_MULTIPLE} px, one cell of the backbone's last stage"
            raise _mismatch(path, f"{where}.batch_size", expected, 1)
    coco, shapes = recipe.data.coco, recipe.data.shapes
    images = shapes.train_images if shapes else coco.train.limit if coco else None
    if images is not None:
        _check_lengths(recipe, images)
    if recipe.onnx and recipe.onnx.input.size:
        height, width = recipe.onnx.input.size
        for key, scales in (
            ("cache_teacher.views.scales", recipe.cache.views.scales),
            ("evaluate.scale", (recipe.evaluate.scale,)),
        ):
            if set(scales) != {(width, height)}:
                raise _mismatch(path, key, f"{[width, height]}, the teacher's input", list(map(list, scales)))
    return recipe


def check_machine(recipe: Recipe) -> None:
    """Refuse a recipe whose images or teacher are not on this machine.

    Raises:
        ConfigError: Names what is missing, where it was looked for, and what to do.
    """
    coco = recipe.data.coco
    if coco:
        root = Path(dataset_root(coco.root))
        for split in (coco.train, coco.val):
            for part in (root, root / split.annotations, root / split.images):
                if not part.exists():
                    raise ConfigError(
                        f"{recipe.path}: prepare_data.coco: expected {part}, but there is none; link the "
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


def read_recipe(path: Path) -> Recipe:
    """Every section of a parameter file, each by itself."""
    content = read_sections(path)
    run_name(content, path)
    known = ("name", "root", "file", *SECTIONS)
    unknown = [key for key in content if key not in known]
    if unknown:
        raise ConfigError(f"{path}: unknown section {unknown[0]!r}; expected {', '.join(known)}")
    teacher = load_section(PrepareTeacherConfig, "prepare_teacher", path)
    described = teacher.is_onnx and Path(teacher.source).exists()
    load_fidelity(path)
    return Recipe(
        path=path,
        data=load_section(PrepareDataConfig, "prepare_data", path),
        teacher=teacher,
        onnx=read_onnx_description(teacher.file) if described else None,
        cache=load_section(CacheConfig, "cache_teacher", path),
        students=load_students(StudentConfig, path),
        evaluate=load_section(EvaluateConfig, "evaluate", path),
    )


def _check_place(path: Path) -> None:
    """``file`` and ``root``, of which DVC makes its commands, say where the file is."""
    content = read_sections(path)
    for key, start, end in (("file", Path(), path), ("root", path.parent, Path())):
        value = content.get(key)
        if not isinstance(value, str) or (start / value).resolve() != end.resolve():
            raise _mismatch(path, key, repr(os.path.relpath(end, start)), value)


def _check_students(recipe: Recipe) -> None:
    """Students predict what their teacher predicts, and are validated on one split."""
    split = (read_sections(recipe.path)["student"].get("validation") or {}).get("split")
    if split is None:
        raise _mismatch(recipe.path, "student.validation.split", "'train' or 'val' for all students", None)
    detector, onnx = recipe.teacher.detector, recipe.onnx
    taught: dict[str, Any] = {}
    if detector:
        taught = {"levels": detector.levels, "reg_max": detector.reg_max}
        if recipe.teacher.train:  # a given teacher may know more classes than the dataset has
            taught["num_classes"] = detector.num_classes
    elif onnx:
        strides = onnx.points.strides
        taught = {"levels": len(strides), "reg_max": onnx.edges.bins - 1}
    for name, student in recipe.students.items():
        if student.loss.reads_dense and recipe.cache.dense is None:
            needs = f"{{floor: 0.005}} for the terms bckd_cls and bckd_box of students.{name}"
            raise _mismatch(recipe.path, "cache_teacher.dense", needs, None)
        if student.loss.vlr_kd_weight and not recipe.cache.valuable_classes:
            needs = f"true for the term vlr_kd of students.{name}"
            raise _mismatch(recipe.path, "cache_teacher.valuable_classes", needs, got=False)
        classes = student.detector.num_classes
        for key in ("kd_weight", "vlr_kd_weight") if classes == 1 else ():
            if weight := getattr(student.loss, key):
                where = f"students.{name}.loss.{key}"
                wanted = "0 for one class, of which a softmax is always 1; bckd_cls_weight is of sigmoids"
                raise _mismatch(recipe.path, where, wanted, weight)
        for key, expected in taught.items():
            got = getattr(student.detector, key)
            if got != expected:
                where = f"students.{name}.detector.{key}"
                raise _mismatch(recipe.path, where, f"{expected}, as its teacher has", got)
        if student.validation.split != split:
            where = f"students.{name}.validation.split"
            expected = f"student.validation.split {split!r}"
            raise _mismatch(recipe.path, where, expected, student.validation.split)


def _trainings(recipe: Recipe) -> Iterator[tuple[str, TrainConfig, Views]]:
    """Each training that the stages run: where it stands, and what it sees."""
    if recipe.teacher.train and recipe.teacher.views:
        yield "prepare_teacher.train", recipe.teacher.train, recipe.teacher.views
    for name, student in recipe.students.items():
        yield f"students.{name}.train", student.train, recipe.cache.views


def check_images(path: Path, images: int) -> None:
    """Refuse trainings of a checked file that so many images are too few for: before the first one runs.

    Raises:
        ConfigError: Names the file, the section and the key.
    """
    _check_lengths(read_recipe(path), images)


def _check_lengths(recipe: Recipe, images: int) -> None:
    """A training has images for a batch, and steps beyond its warm-up."""
    for where, train, _ in _trainings(recipe):
        if train.batch_size > images:
            expected = f"at most the {images} training images"
            raise _mismatch(recipe.path, f"{where}.batch_size", expected, train.batch_size)
        steps = train.epochs * (images // train.batch_size)
        if train.warmup_steps >= steps:
            expected = f"fewer than the {steps} steps of the training"
            raise _mismatch(recipe.path, f"{where}.warmup_steps", expected, train.warmup_steps)


def _mismatch(path: Path, key: str, expected: str, got: object) -> ConfigError:
    return ConfigError(f"{path}: {key}: expected {expected}, but got {got!r}")
