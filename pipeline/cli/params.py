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

UNWATCHED = "pipeline/datasets/coco.py"
"""As ``prepare_data.source``: DVC does not look at the dataset, as in a rehearsal, which runs once."""

Mismatch = tuple[str, str, object]
"""A key, what was expected of it, and what it is."""


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

    A ``ConfigError`` names the file, the section and the key.
    """
    recipe = read_recipe(path)
    coco, shapes = recipe.data.coco, recipe.data.shapes
    images = shapes.train_images if shapes else coco.train.limit if coco else None
    lengths = _wrong_lengths(recipe, images) if images is not None else ()
    parts = _misplaced(path), _unwatched(recipe.data), _wrong_students(recipe), _wrong_views(recipe)
    _refuse(path, *parts, lengths)
    return recipe


def check_machine(recipe: Recipe) -> None:
    """Refuse a recipe whose images or teacher are not here; a ``ConfigError`` names them and what to do."""
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


def _refuse(path: Path, *mismatches: Iterable[Mismatch]) -> None:
    for key, expected, got in chain(*mismatches):
        raise ConfigError(f"{path}: {key}: expected {expected}, but got {got!r}")


def _misplaced(path: Path) -> Iterator[Mismatch]:
    """``file`` and ``root``, of which DVC makes its commands, say where the file is."""
    content = read_sections(path)
    for key, start, end in (("file", Path(), path), ("root", path.parent, Path())):
        value = content.get(key)
        if not isinstance(value, str) or (start / value).resolve() != end.resolve():
            yield key, repr(os.path.relpath(end, start)), value


def _unwatched(data: PrepareDataConfig) -> Iterator[Mismatch]:
    """What DVC watches is the dataset or its annotations, a part of them, or has them as a part."""
    coco, source = data.coco, data.source.removesuffix(".dvc")
    if coco and source != UNWATCHED:
        parts = (coco.root, *(f"{coco.root}/{split.annotations}" for split in (coco.train, coco.val)))
        for path in (os.path.normpath, os.path.realpath):
            pairs = [(Path(path(source)), Path(path(part))) for part in parts]
            if any(one.is_relative_to(other) or other.is_relative_to(one) for one, other in pairs):
                return
        yield "prepare_data.source", f"what DVC is to watch: {coco.root} or a part of it", data.source


def _wrong_students(recipe: Recipe) -> Iterator[Mismatch]:
    """Students predict what their teacher predicts, read what is stored, and are validated on one split."""
    split = (read_sections(recipe.path)["student"].get("validation") or {}).get("split")
    if split is None:
        yield "student.validation.split", "'train' or 'val' for all students", None
    detector, onnx = recipe.teacher.detector, recipe.onnx
    taught: dict[str, int] = {}
    if detector:
        taught = {"levels": detector.levels, "reg_max": detector.reg_max}
        if recipe.teacher.train:  # a given teacher may know more classes than the dataset has
            taught["num_classes"] = detector.num_classes
    elif onnx:
        taught = {"levels": len(onnx.points.strides), "reg_max": onnx.edges.bins - 1}
    for name, student in recipe.students.items():
        where, loss = f"students.{name}", student.loss
        if loss.reads_dense and recipe.cache.dense is None:
            needs = f"{{floor: 0.005}} for the terms bckd_cls and bckd_box of {where}"
            yield "cache_teacher.dense", needs, None
        if loss.vlr_kd_weight and not recipe.cache.valuable_classes:
            yield "cache_teacher.valuable_classes", f"true for the term vlr_kd of {where}", False
        for key in ("kd_weight", "vlr_kd_weight"):
            if student.detector.num_classes == 1 and (weight := getattr(loss, key)):
                needs = "0 for one class, of which a softmax is always 1; bckd_cls_weight is of sigmoids"
                yield f"{where}.loss.{key}", needs, weight
        for key, expected in taught.items():
            if (got := getattr(student.detector, key)) != expected:
                yield f"{where}.detector.{key}", f"{expected}, as its teacher has", got
        if student.validation.split != split:
            needs = f"student.validation.split {split!r}"
            yield f"{where}.validation.split", needs, student.validation.split


def _trainings(recipe: Recipe) -> Iterator[tuple[str, TrainConfig, Views]]:
    """Each training that the stages run: where it stands, and what it sees."""
    if recipe.teacher.train and recipe.teacher.views:
        yield "prepare_teacher.train", recipe.teacher.train, recipe.teacher.views
    for name, student in recipe.students.items():
        yield f"students.{name}.train", student.train, recipe.cache.views


def _wrong_views(recipe: Recipe) -> Iterator[Mismatch]:
    """A training has views for each epoch, of more than one cell in a batch; an ONNX teacher takes them."""
    for where, train, views in _trainings(recipe):
        if train.frozen_stages >= 0 and not train.pretrained:
            yield f"{where}.frozen_stages", "-1 for a backbone of random weights", train.frozen_stages
        if isinstance(views, PerEpochViewsConfig) and train.epochs > views.epochs:
            yield f"{where}.epochs", f"at most the {views.epochs} of views", train.epochs
        # BatchNorm in training has no variance of one value: that of a batch of one cell.
        if train.batch_size == 1 and not train.norm_eval and min(map(min, views.scales)) <= PAD_MULTIPLE:
            expected = f"2 or more where a view has {PAD_MULTIPLE} px, one cell of the backbone's last stage"
            yield f"{where}.batch_size", expected, 1
    if recipe.onnx and recipe.onnx.input.size:
        size = recipe.onnx.input.size[::-1]
        for key, scales in (
            ("cache_teacher.views.scales", recipe.cache.views.scales),
            ("evaluate.scale", (recipe.evaluate.scale,)),
        ):
            if set(scales) != {size}:
                yield key, f"{list(size)}, the teacher's input", list(map(list, scales))


def check_images(path: Path, images: int) -> None:
    """Refuse trainings of a checked file that so many images are too few for: before the first one runs."""
    _refuse(path, _wrong_lengths(read_recipe(path), images))


def _wrong_lengths(recipe: Recipe, images: int) -> Iterator[Mismatch]:
    """A training has images for a batch, and steps beyond its warm-up."""
    for where, train, _ in _trainings(recipe):
        if train.batch_size > images:
            yield f"{where}.batch_size", f"at most the {images} training images", train.batch_size
        steps = train.epochs * (images // train.batch_size)
        if train.warmup_steps >= steps:
            yield f"{where}.warmup_steps", f"fewer than the {steps} steps of the training", train.warmup_steps
