"""Whatever a user does wrong gives one clear line and an exit code, and costs nothing that was computed."""

import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finished import FOLDER, UNFINISHED, Ended, call, files_below
from PIL import Image
from project import DATASET, Params, edit_params
from safetensors.torch import load_file, save_file

from pipeline.data.manifest import read_manifest, training_boxes
from pipeline.parallel import cluster

TRAIN = DATASET / "annotations/instances_train.json"
VAL = DATASET / "annotations/instances_val.json"
LAST_IMAGE = DATASET / "train/000000000008.bmp"
"""Of the partition that is not finished."""
VAL_IMAGE = DATASET / "val/000001000001.bmp"

Edit = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Something that a user does wrong, and what comes of it.

    Attributes:
        does: In words.
        edit: Of the project, in which everything had run before.
        environment: Variables that are set.
        run: The stage, or the command of ``ldp``.
        code: Its exit code: 2 from argparse, which prints how it is used; 1 with one line of ours.
        says: Parts of that line.
    """

    does: str
    edit: Edit = field(default=lambda _folder: None)
    environment: dict[str, str] = field(default_factory=dict)
    run: str
    code: int = 1
    says: tuple[str, ...] = ()


def written(path: Path | str, content: str | bytes) -> Edit:
    """Put another content into a file."""

    def edit(folder: Path) -> None:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    return edit


def cut(path: Path, size: int) -> Edit:
    """Leave the beginning of a file."""
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:size])


def a_file_instead(path: Path | str) -> Edit:
    """A file lies where a folder should be."""

    def edit(folder: Path) -> None:
        shutil.rmtree(folder / path, ignore_errors=True)
        (folder / path).write_text("a file where a folder should be")

    return edit


def removed(path: Path | str) -> Edit:
    def edit(folder: Path) -> None:
        target = folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return edit


def coco(*keys: str | int, to: Any, path: Path = TRAIN) -> Edit:
    """Set one value of an annotation file."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / path).read_text())
        set_value(content, keys, to)
        (folder / path).write_text(json.dumps(content))

    return edit


def twice(section: str) -> Edit:
    """The first row of a section of the annotations comes a second time."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / TRAIN).read_text())
        content[section].append(content[section][0])
        (folder / TRAIN).write_text(json.dumps(content))

    return edit


def params(*keys: str | int, to: Any) -> Edit:
    """Set one value of ``params.yaml``."""
    return partial(edit_params, edit=lambda values: set_value(values, keys, to))


def without(*keys: str) -> Edit:
    """Take one key out of ``params.yaml``."""

    def remove(values: Params) -> None:
        *path, last = keys
        for key in path:
            values = values[key]
        del values[last]

    return partial(edit_params, edit=remove)


def set_value(values: Any, keys: tuple[str | int, ...], to: Any) -> None:
    *path, last = keys
    for key in path:
        values = values[key]
    values[last] = to


def image(path: Path, kind: str, change: Callable[[Image.Image], Image.Image]) -> Edit:
    """Save an image in another way; its format is known by its content, not by its name."""

    def edit(folder: Path) -> None:
        with Image.open(folder / path) as old:
            changed = change(old)
        changed.save(folder / path, kind)

    return edit


def moving(path: Path, kind: str) -> Edit:
    """The image, and then nothing."""

    def edit(folder: Path) -> None:
        with Image.open(folder / path) as old:
            frames = [old.copy(), Image.new("RGB", old.size)]
        frames[0].save(folder / path, kind, save_all=True, append_images=frames[1:])

    return edit


def huge(_old: Image.Image) -> Image.Image:
    """20 KB as a PNG, and 400 million pixels in memory."""
    return Image.new("1", (20_000, 20_000))


def leave_by_link(folder: Path) -> None:
    """An image is a link to a file elsewhere."""
    shutil.move(folder / LAST_IMAGE, folder / "elsewhere.bmp")
    (folder / LAST_IMAGE).symlink_to(folder / "elsewhere.bmp")


def leave_by_linked_folder(folder: Path) -> None:
    """A folder inside the image folder is a link to one elsewhere."""
    (folder / "elsewhere").mkdir()
    shutil.copy(folder / LAST_IMAGE, folder / "elsewhere/a.bmp")
    (folder / DATASET / "train/sub").symlink_to(folder / "elsewhere")
    coco("images", 7, "file_name", to="sub/a.bmp")(folder)


class Malicious:
    """Leaves a file behind if it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("code-ran"),)


def malicious(path: str) -> Edit:
    return lambda folder: torch.save({"state_dict": {}, "meta": Malicious()}, folder / path)


def malicious_raw(path: str) -> Edit:
    return lambda folder: (folder / path).write_bytes(pickle.dumps(Malicious(), protocol=2))


def take_weights(source: str) -> Edit:
    """Take given weights instead of training."""
    return partial(
        edit_params,
        edit=lambda values: values["prepare_teacher"].update(source=source, views=None, train=None),
    )


def both(*edits: Edit) -> Edit:
    return lambda folder: [edit(folder) for edit in edits]


def not_a_number(path: Path) -> Edit:
    """One weight is NaN."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / path)
        tensors["bbox_head.gfl_reg.bias"][3] = float("nan")
        save_file(tensors, folder / path)

    return edit


def newer_store(folder: Path) -> None:
    path = folder / FOLDER.store / "zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["schema"]["format_version"] = 99
    path.write_text(json.dumps(content))


def first_shard(folder: Path) -> Path:
    return folder / FOLDER.store / "points/edge_codes/c/0/0"


STORE, WEIGHTS = FOLDER.store, FOLDER.teacher_weights
STUDENT = FOLDER.student_weights("ld")
DATA, TEACHER, CACHE = "prepare_data", "prepare_teacher", "cache_teacher"
LD = ("students", "ld")

ANNOTATIONS = [
    Wrong(does="no JSON", edit=written(TRAIN, "images: []"), run=DATA, says=("is not JSON",)),
    Wrong(does="cut JSON", edit=cut(TRAIN, 900), run=DATA, says=("instances_train.json", "is not JSON")),
    Wrong(does="an empty annotation file", edit=written(VAL, ""), run=DATA, says=("instances_val.json",)),
    Wrong(does="JSON of no depth", edit=written(TRAIN, "[" * 200_000), run=DATA, says=("is not JSON",)),
    Wrong(
        does="bytes that are no text", edit=written(TRAIN, b"\xff\xfe\x00\xd8"), run=DATA, says=("not JSON",)
    ),
    Wrong(does="a list as annotations", edit=written(TRAIN, "[]"), run=DATA, says=("but got a list",)),
    Wrong(does="no categories", edit=written(TRAIN, '{"images": []}'), run=DATA, says=("'categories'",)),
    Wrong(does="images as a mapping", edit=coco("images", to={}), run=DATA, says=("a list 'images'",)),
    Wrong(does="an annotation file that is missing", edit=removed(TRAIN), run=DATA, says=("cannot be read",)),
    Wrong(
        does="a folder as annotations",
        edit=params(DATA, "coco", "train", "annotations", to="train"),
        run=DATA,
        says=("Is a directory",),
    ),
    Wrong(
        does="a height in words",
        edit=coco("images", 0, "height", to="64"),
        run=DATA,
        says=("images[0].height: expected int, but got '64'",),
    ),
    Wrong(
        does="a height of true",
        edit=coco("images", 0, "height", to=True),
        run=DATA,
        says=("expected int, but got True",),
    ),
    Wrong(
        does="a height of 0",
        edit=coco("images", 0, "height", to=0, path=VAL),
        run=DATA,
        says=("instances_val.json: image 1000001: expected height of 1 px or more, but got 0",),
    ),
    Wrong(
        does="a negative width",
        edit=coco("images", 0, "width", to=-64),
        run=DATA,
        says=("expected width of 1 px or more, but got -64",),
    ),
    Wrong(
        does="an id of 70 bits",
        edit=coco("images", 0, "id", to=2**70),
        run=DATA,
        says=("images[0].id: expected int, but got 1180591620717411303424",),
    ),
    Wrong(
        does="a box of three numbers",
        edit=coco("annotations", 0, "bbox", to=[1, 2, 3]),
        run=DATA,
        says=("expected bbox as 4 finite numbers",),
    ),
    Wrong(
        does="a box of words",
        edit=coco("annotations", 0, "bbox", to=["1", 2, 3, 4]),
        run=DATA,
        says=("but got ['1', 2, 3, 4]",),
    ),
    Wrong(
        does="NaN in a box",
        edit=coco("annotations", 0, "bbox", 2, to=float("nan")),
        run=DATA,
        says=("expected bbox as 4 finite numbers",),
    ),
    Wrong(
        does="Infinity in a box",
        edit=coco("annotations", 0, "bbox", 0, to=float("inf")),
        run=DATA,
        says=("expected bbox as 4 finite numbers",),
    ),
    Wrong(
        does="a number in a box that float32 does not have",
        edit=coco("annotations", 0, "bbox", 2, to=1e300),
        run=DATA,
        says=("of at most 1e+09",),
    ),
    Wrong(
        does="a number in a box that no float is",
        edit=coco("annotations", 0, "bbox", 2, to=10**400),
        run=DATA,
        says=("expected bbox as 4 finite numbers",),
    ),
    Wrong(
        does="NaN as an area",
        edit=coco("annotations", 0, "area", to=float("nan")),
        run=DATA,
        says=("expected area as a finite number, but got nan",),
    ),
    Wrong(
        does="an area in words",
        edit=coco("annotations", 0, "area", to="large"),
        run=DATA,
        says=("expected area as a finite number, but got 'large'",),
    ),
    Wrong(does="an image id twice", edit=twice("images"), run=DATA, says=("image id 1 is used twice",)),
    Wrong(
        does="an annotation id twice", edit=twice("annotations"), run=DATA, says=("annotation id", "twice")
    ),
    Wrong(
        does="a category id twice", edit=twice("categories"), run=DATA, says=("category id 1 is used twice",)
    ),
    Wrong(
        does="an annotation of no image",
        edit=coco("annotations", 0, "image_id", to=99),
        run=DATA,
        says=("image_id 99 is not in images",),
    ),
    Wrong(
        does="an annotation of no category",
        edit=coco("annotations", 0, "category_id", to=99),
        run=DATA,
        says=("category_id 99 is not in categories",),
    ),
    Wrong(
        does="other categories in the validation split",
        edit=both(
            coco("categories", to=[{"id": 5, "name": "x"}], path=VAL), coco("annotations", to=[], path=VAL)
        ),
        run=DATA,
        says=("expected the categories of the training split, [1, 3, 4, 7], but got [5]",),
    ),
    Wrong(does="nothing to train on", edit=coco("images", to=[]), run=DATA, says=("is not in images",)),
    Wrong(
        does="images without a box",
        edit=both(coco("annotations", to=[]), params(DATA, "keep_empty_images", to=False)),
        run=DATA,
        says=("expected images to train on, but there are none",),
    ),
]

PLACES = [
    Wrong(
        does="a file name that climbs",
        edit=coco("images", 0, "file_name", to="../val/a.bmp"),
        run=DATA,
        says=("expected file_name as a path inside the image folder, but got '../val/a.bmp'",),
    ),
    Wrong(
        does="an absolute file name",
        edit=coco("images", 0, "file_name", to="/etc/passwd"),
        run=DATA,
        says=("inside the image folder, but got '/etc/passwd'",),
    ),
    Wrong(
        does="a file name of Windows",
        edit=coco("images", 0, "file_name", to="..\\a.bmp"),
        run=DATA,
        says=("inside the image folder",),
    ),
    Wrong(
        does="an empty file name",
        edit=coco("images", 0, "file_name", to=""),
        run=DATA,
        says=("inside the image folder, but got ''",),
    ),
    Wrong(
        does="a file name with a NUL",
        edit=coco("images", 0, "file_name", to="a\0.bmp"),
        run=DATA,
        says=("inside the image folder",),
    ),
    Wrong(
        does="an image that is a link out of the folder",
        edit=leave_by_link,
        run=DATA,
        says=("000000000008.bmp: expected an image inside train, but got a link to", "link the whole folder"),
    ),
    Wrong(
        does="a folder of images that is a link out of the folder",
        edit=leave_by_linked_folder,
        run=DATA,
        says=("sub/a.bmp: expected an image inside train, but got a link to",),
    ),
    Wrong(
        does="an image that is missing",
        edit=removed(LAST_IMAGE),
        run=DATA,
        says=("000000000008.bmp: expected an image that the annotations name, but there is none",),
    ),
    Wrong(
        does="a dataset that is nowhere",
        edit=params(DATA, "coco", "root", to="nowhere"),
        run=DATA,
        says=("nowhere: expected the folder of a dataset, but there is none; link it there",),
    ),
    Wrong(
        does="a dataset that is a file",
        edit=params(DATA, "coco", "root", to="params.yaml"),
        run=DATA,
        says=("params.yaml: expected the folder of a dataset",),
    ),
    Wrong(
        does="datasets that lie elsewhere",
        environment={"LDP_DATASETS": "/nowhere"},
        run=DATA,
        says=("/nowhere/tiny: expected the folder of a dataset",),
    ),
    Wrong(
        does="datasets that lie elsewhere when the teacher runs",
        environment={"LDP_DATASETS": "/nowhere"},
        run=CACHE,
        says=("/nowhere/tiny/train/", "expected an image, but there is none"),
    ),
]

IMAGES = [
    Wrong(
        does="a cut image", edit=cut(LAST_IMAGE, 900), run=CACHE, says=("000000000008.bmp", "cannot be read")
    ),
    Wrong(does="an empty image", edit=written(LAST_IMAGE, b""), run=TEACHER, says=("cannot be read",)),
    Wrong(
        does="a text as an image",
        edit=written(VAL_IMAGE, "hello"),
        run="evaluate ld",
        says=("000001000001.bmp: expected an image, but it cannot be read",),
    ),
    Wrong(
        does="an image that is missing when it is read",
        edit=removed(LAST_IMAGE),
        run="train_student ld",
        says=("000000000008.bmp: expected an image, but there is none",),
    ),
    Wrong(
        does="a decompression bomb",
        edit=image(LAST_IMAGE, "PNG", huge),
        run=CACHE,
        says=("decompression bomb",),
    ),
    Wrong(
        does="an animated GIF",
        edit=moving(LAST_IMAGE, "GIF"),
        run=CACHE,
        says=("expected a still image, but got 2 frames",),
    ),
    Wrong(
        does="an animated PNG",
        edit=moving(VAL_IMAGE, "PNG"),
        run="evaluate teacher",
        says=("expected a still image, but got 2 frames",),
    ),
    Wrong(
        does="an image of 32-bit numbers",
        edit=image(LAST_IMAGE, "TIFF", lambda old: old.convert("F")),
        run=CACHE,
        says=("a pixel is a 32-bit number, mode F: convert it to 8 bits",),
    ),
    Wrong(
        does="an image of another size",
        edit=image(LAST_IMAGE, "BMP", lambda old: old.resize((20, 10))),
        run=CACHE,
        says=("expected an image of (height, width) =", "but got (10, 20)"),
    ),
]

PARAMS = [
    Wrong(
        does="no parameters",
        edit=removed("params.yaml"),
        run=DATA,
        says=("params.yaml: expected a parameter file",),
    ),
    Wrong(
        does="a folder as parameters",
        edit=both(removed("params.yaml"), lambda f: (f / "params.yaml").mkdir()),
        run=DATA,
        says=("params.yaml: expected a parameter file, but it cannot be read (Is a directory)",),
    ),
    Wrong(
        does="empty parameters",
        edit=written("params.yaml", ""),
        run=CACHE,
        says=("params.yaml: expected a mapping of sections, but got None",),
    ),
    Wrong(
        does="a list of parameters",
        edit=written("params.yaml", "- a\n"),
        run="verify_cache",
        says=("params.yaml: expected a mapping of sections, but got ['a']",),
    ),
    Wrong(
        does="no YAML",
        edit=written("params.yaml", "a: [1\n"),
        run="report",
        says=("params.yaml: expected YAML",),
    ),
    Wrong(
        does="bytes as parameters",
        edit=written("params.yaml", b"a: \xff\xfe"),
        run=DATA,
        says=("expected YAML",),
    ),
    Wrong(
        does="YAML of no depth", edit=written("params.yaml", "[" * 5000), run=DATA, says=("expected YAML",)
    ),
    Wrong(
        does="a section that is missing",
        edit=without("evaluate"),
        run="evaluate ld",
        says=("expected a section 'evaluate'",),
    ),
    Wrong(
        does="a key that is missing",
        edit=without(CACHE, "batch_size"),
        run=CACHE,
        says=("params.yaml: cache_teacher: missing key 'batch_size'",),
    ),
    Wrong(
        does="a key that nobody knows",
        edit=params(DATA, "colour", to=3),
        run=DATA,
        says=("params.yaml: prepare_data: unknown key 'colour'; expected source",),
    ),
    Wrong(
        does="a text for a number",
        edit=params(*LD, "loss", "ld_weight", to="much"),
        run="train_student ld",
        says=("students.ld.loss.ld_weight: expected a finite number, but got 'much'",),
    ),
    Wrong(
        does="true for an integer",
        edit=params(CACHE, "batch_size", to=True),
        run=CACHE,
        says=("batch_size: expected an integer of at most 64 bits, but got True",),
    ),
    Wrong(
        does="a fraction for an integer",
        edit=params("verify_cache", "views", to=1.5),
        run="verify_cache",
        says=("verify_cache.views: expected an integer",),
    ),
    Wrong(
        does="an integer of 300 bits",
        edit=params(TEACHER, "train", "seed", to=2**300),
        run=TEACHER,
        says=("train.seed: expected an integer of at most 64 bits",),
    ),
    Wrong(
        does="a seed of 60 bits",
        edit=params(*LD, "train", "seed", to=2**60),
        run="train_student ld",
        says=("students.ld.train: seed: expected 0 to 2147483647",),
    ),
    Wrong(
        does="a negative seed",
        edit=params("verify_cache", "seed", to=-1),
        run="verify_cache",
        says=("seed: expected 0 or more, but got -1",),
    ),
    Wrong(
        does="NaN as a rate",
        edit=params(TEACHER, "train", "schedule", "learning_rate", to=float("nan")),
        run=TEACHER,
        says=("learning_rate: expected a finite number, but got nan",),
    ),
    Wrong(
        does="a number that no float is",
        edit=params(*LD, "loss", "ld_weight", to=10**400),
        run="train_student ld",
        says=("ld_weight: expected a finite number",),
    ),
    Wrong(
        does="a negative step",
        edit=params(CACHE, "precision", "edge_step", to=-0.03),
        run=CACHE,
        says=("expected edge_step > 0, but got -0.03",),
    ),
    Wrong(
        does="half a precision",
        edit=params(CACHE, "precision", "cls_step", to=None),
        run=CACHE,
        says=("both numbers (quantised) or both null",),
    ),
    Wrong(
        does="a batch of nothing",
        edit=params(CACHE, "batch_size", to=0),
        run=CACHE,
        says=("batch_size: expected 1 or more, but got 0",),
    ),
    Wrong(
        does="an evaluation in batches of nothing",
        edit=params("evaluate", "batch_size", to=0),
        run="evaluate ld",
        says=("evaluate: batch_size: expected 1 or more, but got 0",),
    ),
    Wrong(
        does="bounds the wrong way round",
        edit=params("evaluate", "area_edges", to=[32, 12]),
        run="evaluate ld",
        says=("area_edges: expected 0 < small < large",),
    ),
    Wrong(
        does="a test scale of nothing",
        edit=params("evaluate", "scale", to=[64, 0]),
        run="evaluate teacher",
        says=("evaluate: scales: expected (long, short)",),
    ),
    Wrong(
        does="a batch that is too large",
        edit=params(*LD, "train", "schedule", "batch_size", to=9),
        run="train_student ld",
        says=("batch_size: expected at most the 8 training images, but got 9",),
    ),
    Wrong(
        does="no epoch",
        edit=params(TEACHER, "train", "schedule", "epochs", to=0),
        run=TEACHER,
        says=("epochs: expected more than 0, but got 0",),
    ),
    Wrong(
        does="a warm-up of less than nothing",
        edit=params(*LD, "train", "schedule", "warmup_steps", to=-1),
        run="train_student ld",
        says=("warmup_steps: expected 0 or more, but got -1",),
    ),
    Wrong(
        does="no views",
        edit=params(CACHE, "views", "flips", to=[]),
        run=CACHE,
        says=("at least one scale and one flip",),
    ),
    Wrong(
        does="views that fill the memory",
        edit=params(CACHE, "views", "scales", to=[[10**6, 10**6]]),
        run=CACHE,
        says=("scales: expected (long, short) with 16384 >= long",),
    ),
    Wrong(
        does="a scale of three numbers",
        edit=params(CACHE, "views", "scales", to=[[64, 64, 3]]),
        run=CACHE,
        says=("scales[0]: expected a list of 2, but got [64, 64, 3]",),
    ),
    Wrong(
        does="an optimiser that nobody knows",
        edit=params(TEACHER, "train", "schedule", "optimizer", to="lbfgs"),
        run=TEACHER,
        says=("expected one of 'sgd', 'adamw', but got 'lbfgs'",),
    ),
    Wrong(
        does="a backbone that nobody knows",
        edit=params(*LD, "detector", "backbone", to="vit"),
        run="train_student ld",
        says=("backbone: expected one of mobilenet_v3_small,",),
    ),
    Wrong(
        does="no groups",
        edit=params(*LD, "detector", "norm_groups", to=0),
        run="train_student ld",
        says=("norm_groups: expected 1 to 4096, but got 0",),
    ),
    Wrong(
        does="channels beyond all memory",
        edit=params(*LD, "detector", "channels", to=4 * 10**9),
        run="train_student ld",
        says=("channels: expected 1 to 4096",),
    ),
    Wrong(
        does="a temperature of 0",
        edit=params(*LD, "loss", "ld_temperature", to=0),
        run="train_student ld",
        says=("ld_temperature: expected more than 0",),
    ),
    Wrong(
        does="no image of a split",
        edit=params(DATA, "coco", "train", "limit", to=0),
        run=DATA,
        says=("limit: expected 1 or more, or null for all, but got 0",),
    ),
    Wrong(
        does="two datasets at a time",
        edit=params(DATA, "coco", to=None),
        run=DATA,
        says=("expected exactly one of shapes and coco",),
    ),
    Wrong(
        does="a name with a slash",
        edit=params("name", to="../other"),
        run=DATA,
        says=("name: expected letters, digits, _ and - (outputs lie in runs/NAME), but got '../other'",),
    ),
    Wrong(
        does="a name with a dot", edit=params("name", to="a.b"), run=CACHE, says=("name: expected letters",)
    ),
    Wrong(
        does="an empty name",
        edit=params("name", to=""),
        run="report",
        says=("name: expected letters", "but got ''"),
    ),
    Wrong(
        does="a number as a name",
        edit=params("name", to=7),
        run=TEACHER,
        says=("name: expected letters", "but got 7"),
    ),
    Wrong(
        does="no students",
        edit=params("students", to={}),
        run="report",
        says=("students: expected one student or more by name, but got {}",),
    ),
    Wrong(
        does="a student named teacher",
        edit=params("students", "teacher", to={}),
        run="report",
        says=("students: expected other names than 'teacher'",),
    ),
    Wrong(
        does="a student with a path as its name",
        edit=params("students", "../ld", to={}),
        run="train_student ../ld",
        says=("students: expected names of letters, digits, _ and -, but got '../ld'",),
    ),
    Wrong(
        does="a student that is not there",
        run="train_student nobody",
        says=("students: expected one of plain, ld, but got 'nobody'",),
    ),
    Wrong(
        does="an evaluation of nobody",
        run="evaluate nobody",
        says=("expected one of plain, ld, but got 'nobody'",),
    ),
]

DETECTORS = [
    Wrong(
        does="a student of another grid",
        edit=params(*LD, "detector", "levels", to=4),
        run="train_student ld",
        says=("the store was made from something else: geometry.strides",),
    ),
    Wrong(
        does="a student of other bins",
        edit=params(*LD, "detector", "reg_max", to=8),
        run="train_student ld",
        says=("the store was made from something else: geometry.bins is 17 in the store, but 9 is needed",),
    ),
    Wrong(
        does="a student of other classes",
        edit=params(*LD, "detector", "num_classes", to=3),
        run="train_student ld",
        says=("num_classes: expected the dataset's 4 classes, but got 3",),
    ),
    Wrong(
        does="a teacher of other classes",
        edit=params(TEACHER, "detector", "num_classes", to=5),
        run=TEACHER,
        says=("num_classes: expected the dataset's 4 classes, but got 5",),
    ),
    Wrong(
        does="a teacher that is missing", edit=removed(WEIGHTS), run=CACHE, says=("expected a weights file",)
    ),
    Wrong(
        does="a teacher without its description",
        edit=removed(WEIGHTS.with_suffix(".json")),
        run="evaluate teacher",
        says=("expected the description that belongs to teacher.safetensors, but there is none",),
    ),
    Wrong(
        does="a damaged description",
        edit=written(WEIGHTS.with_suffix(".json"), "{"),
        run="verify_cache",
        says=("teacher.json: expected JSON, but it cannot be read",),
    ),
    Wrong(
        does="a description that is a list",
        edit=written(STUDENT.with_suffix(".json"), "[]"),
        run="evaluate ld",
        says=("student.json: expected a description, but got []",),
    ),
    Wrong(
        does="a cut weights file",
        edit=cut(STUDENT, 5000),
        run="evaluate ld",
        says=("student.safetensors: expected a safetensors file, but it cannot be read",),
    ),
    Wrong(
        does="an empty weights file",
        edit=written(STUDENT, b""),
        run="report",
        says=("expected a safetensors file",),
    ),
    Wrong(
        does="a teacher that says nothing",
        edit=both(removed("scratch"), not_a_number(WEIGHTS)),
        run=CACHE,
        says=("image_id=", "expected finite teacher outputs"),
    ),
    Wrong(
        does="weights of another architecture",
        edit=both(take_weights(str(STUDENT)), params(TEACHER, "detector", "channels", to=32)),
        run=TEACHER,
        says=("the weights do not fit the architecture: key 'neck",),
    ),
    Wrong(
        does="a pickle that runs code, as a .pth",
        edit=malicious("a.pth"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a checkpoint of tensors and plain values",),
    ),
    Wrong(
        does="a raw pickle that runs code",
        edit=malicious_raw("a.pth"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a checkpoint of tensors and plain values",),
    ),
    Wrong(
        does="a pickle that runs code, as safetensors",
        edit=both(malicious("a.safetensors"), take_weights("a.safetensors")),
        run=TEACHER,
        says=("a.safetensors: expected a safetensors file", "ldp teacher import"),
    ),
    Wrong(
        does="a pickle that runs code, as a student",
        edit=malicious(str(STUDENT)),
        run="evaluate ld",
        says=("student.safetensors: expected a safetensors file",),
    ),
    Wrong(
        does="a checkpoint of something else",
        edit=lambda f: torch.save({"a": torch.zeros(2)}, f / "a.pth"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a GFL detector, but key 'neck",),
    ),
    Wrong(
        does="a checkpoint that is missing",
        run="ldp teacher import none.pth",
        says=("none.pth: expected a checkpoint",),
    ),
    Wrong(
        does="a checkpoint that is a text",
        edit=written("a.pth", "hello"),
        run="ldp teacher import a.pth",
        says=("a.pth: expected a checkpoint of tensors",),
    ),
    Wrong(
        does="an export of nothing",
        run="ldp teacher export none.safetensors out.pth",
        says=("none.json: expected",),
    ),
]

STORES = [
    Wrong(
        does="no store", edit=removed(STORE), run="train_student ld", says=("expected a store at", "dvc pull")
    ),
    Wrong(
        does="a file as a store",
        edit=a_file_instead(STORE),
        run="train_student ld",
        says=("but it is a file",),
    ),
    Wrong(
        does="an empty folder as a store",
        edit=both(removed(STORE), lambda f: (f / STORE).mkdir()),
        run="verify_cache",
        says=("but it has no zarr.json",),
    ),
    Wrong(
        does="a store of a newer format",
        edit=newer_store,
        run="ldp store info",
        says=("expected a store of format_version 2, but got 99; update this code",),
    ),
    Wrong(
        does="a store with a shard missing",
        edit=lambda f: first_shard(f).unlink(),
        run="train_student ld",
        says=("is damaged: points/edge_codes/c/", "the file is missing"),
    ),
    Wrong(
        does="a store with half a shard",
        edit=lambda f: first_shard(f).write_bytes(b"half"),
        run="report",
        says=("is damaged: points/edge_codes/c/", "but got 4"),
    ),
    Wrong(
        does="a store with half a table",
        edit=cut(STORE / "views/extent/c/0/0", 20),
        run="ldp trial ld --steps 1",
        says=("is damaged: views/extent",),
    ),
    Wrong(
        does="a store without attributes",
        edit=written(STORE / "zarr.json", "{}"),
        run="ldp store verify",
        says=("zarr.json is damaged, or not of a store of teacher outputs",),
    ),
    Wrong(
        does="a damaged store that is verified",
        edit=lambda f: first_shard(f).write_bytes(b"half"),
        run="verify_cache",
        says=("1 damaged files, the first is points/edge_codes",),
    ),
    Wrong(
        does="a store of another teacher",
        edit=lambda f: shutil.copy(f / STUDENT, f / WEIGHTS),
        run="verify_cache",
        says=("the store was made from something else: teacher.weights",),
    ),
    Wrong(
        does="a store that is too coarse",
        edit=params("verify_cache", "max_kl", to=0),
        run="verify_cache",
        says=("fidelity: expected kl_mean of at most 0",),
    ),
    Wrong(
        does="an unfinished store of another plan",
        edit=lambda f: written(next((f / "scratch").iterdir()) / "store.zarr/zarr.json", "{}")(f),
        run=CACHE,
        says=("cannot be continued: remove it, and run again",),
    ),
]

RESULTS = [
    Wrong(
        does="a manifest that is missing",
        edit=removed(FOLDER.manifest("train")),
        run=TEACHER,
        says=("expected a manifest; run the stage prepare_data first",),
    ),
    Wrong(
        does="a cut manifest",
        edit=cut(FOLDER.manifest("val"), 500),
        run="evaluate ld",
        says=("val.json: expected a manifest, but it is damaged; run the stage prepare_data again",),
    ),
    Wrong(
        does="metrics that are missing",
        edit=removed(FOLDER.metrics("ld")),
        run="report",
        says=("metrics/ld.json: expected a result of an earlier stage; run `dvc repro`",),
    ),
    Wrong(
        does="cut metrics",
        edit=cut(FOLDER.metrics("ld"), 9),
        run="report",
        says=("metrics/ld.json: expected a result of an earlier stage, but it is damaged",),
    ),
    Wrong(
        does="a damaged curve",
        edit=written(FOLDER.evaluation("ld") / "precision_recall.csv", "recall,iou\n1,x\n"),
        run="report",
        says=("precision_recall.csv: expected a result of an earlier stage, but it is damaged",),
    ),
    Wrong(
        does="damaged detections",
        edit=written(FOLDER.evaluation("ld") / "detections.json", "["),
        run="report",
        says=("detections.json: expected COCO results",),
    ),
]

MACHINE = [
    Wrong(
        does="a device that nobody knows",
        environment={"LDP_DEVICE": "abacus"},
        run=TEACHER,
        says=("LDP_DEVICE: expected a torch device such as cpu or cuda:0, but got 'abacus'",),
    ),
    Wrong(
        does="a device that is not here",
        environment={"LDP_DEVICE": "cuda:99"},
        run=CACHE,
        says=("LDP_DEVICE: expected a device that this machine has, but got 'cuda:99'",),
    ),
    Wrong(
        does="a device that computes nothing",
        environment={"LDP_DEVICE": "meta"},
        run="evaluate ld",
        says=("LDP_DEVICE: expected a device that this machine has",),
    ),
    Wrong(
        does="workers in words",
        environment={"LDP_WORKERS": "many"},
        run="train_student ld",
        says=("LDP_WORKERS: expected a number of processes", "'many'"),
    ),
    Wrong(
        does="more workers than any machine has",
        environment={"LDP_WORKERS": "99999999"},
        run="train_student ld",
        says=("LDP_WORKERS: expected a number of processes up to 1024",),
    ),
    Wrong(
        does="no cache workers",
        environment={"LDP_CACHE_WORKERS": "0"},
        run=CACHE,
        says=("LDP_CACHE_WORKERS: expected a number of processes from 1 to 1024, but got '0'",),
    ),
    Wrong(
        does="a scheduler that is not there",
        environment={"LDP_DASK_SCHEDULER": "tcp://127.0.0.1:9"},
        run=CACHE,
        says=("expected a Dask scheduler at tcp://127.0.0.1:9, but none answers",),
    ),
    Wrong(
        does="a scheduler that is no address",
        environment={"LDP_DASK_SCHEDULER": "nonsense://x"},
        run=CACHE,
        says=("expected a Dask scheduler at nonsense://x",),
    ),
    Wrong(
        does="a log level that nobody knows",
        environment={"LDP_LOG": "loud"},
        run=DATA,
        says=("LDP_LOG: expected a log level such as INFO or DEBUG, but got 'LOUD'",),
    ),
    Wrong(
        does="a file where the outputs go", edit=a_file_instead("runs"), run=DATA, says=("runs/tiny/data",)
    ),
    Wrong(
        does="a file where the metrics go",
        edit=a_file_instead(f"{FOLDER.root}/metrics"),
        run="evaluate ld",
        says=("metrics/ld.json could not be written:", "move it away, and run again"),
    ),
    Wrong(
        does="a file where unfinished work goes",
        edit=a_file_instead("scratch"),
        run=CACHE,
        says=("scratch could not be written: File exists",),
    ),
    Wrong(
        does="a file where a student goes",
        edit=a_file_instead(FOLDER.student("ld")),
        run="train_student ld",
        says=("could not be written: expected a folder at runs/tiny/students/ld, but a file is in its way",),
    ),
    Wrong(
        does="a file where the report goes",
        edit=a_file_instead(FOLDER.report.parent),
        run="report",
        says=("report/index.html could not be written",),
    ),
]

COMMANDS = [
    Wrong(does="no command", run="ldp", code=2),
    Wrong(does="a command that nobody knows", run="ldp distil", code=2),
    Wrong(does="no action", run="ldp store", code=2),
    Wrong(does="an image id in words", run="ldp store show first", code=2),
    Wrong(does="steps in words", run="ldp trial ld --steps few", code=2),
    Wrong(does="no student", run="train_student", code=2),
    Wrong(does="an option that nobody knows", run="evaluate ld --fast", code=2),
    Wrong(does="an export to nowhere", run="ldp store export", code=2),
    Wrong(
        does="no steps",
        run="ldp trial ld --steps 0",
        says=("ldp trial: --steps: expected 1 or more, but got 0",),
    ),
    Wrong(
        does="a trial of nobody",
        run="ldp trial nobody",
        says=("expected one of plain, ld, but got 'nobody'",),
    ),
    Wrong(
        does="a plain student online",
        run="ldp online plain",
        says=("reads nothing of the teacher; take another",),
    ),
    Wrong(does="a seed below 0", run="ldp seeds plain ld --seeds -1", says=("seed: expected 0 to",)),
    Wrong(
        does="one student to compare",
        run="ldp seeds ld",
        says=("expected two students or more, but got ['ld']",),
    ),
    Wrong(
        does="a store to compare that is nowhere",
        run="ldp seeds plain ld@nowhere --seeds 0",
        edit=lambda _f: None,
        says=("expected a store at", "nowhere"),
    ),
    Wrong(does="an image that is not in the store", run="ldp store show 99", says=("99",)),
    Wrong(
        does="a view that is not in the store",
        run="ldp store show 1 --view 7",
        says=("expected one of the views 0, 1",),
    ),
    Wrong(
        does="a picture of no image",
        run="ldp store show 1 --image nowhere.png",
        says=("nowhere.png: expected an image, but there is none",),
    ),
    Wrong(
        does="a partition that is not there",
        run="ldp store files --partitions 9",
        says=("expected 0 to 3, but got 9",),
    ),
    Wrong(
        does="an export of no views",
        run="ldp store export --output a.npz --views 0",
        says=("--views: expected 1 or more",),
    ),
    Wrong(
        does="an export into a file",
        run="ldp store export --output params.yaml/a.npz",
        says=("params.yaml/a.npz could not be written: expected a folder at params.yaml",),
    ),
    Wrong(
        does="a negative temperature",
        run="ldp store fidelity --temperature -1",
        says=("temperature: expected more than 0",),
    ),
    Wrong(
        does="a temperature that is no number",
        run="ldp store fidelity --temperature nan",
        says=("temperature: expected more than 0, but got nan",),
    ),
    Wrong(
        does="the precision of a quantised store",
        run=f"ldp store fidelity {STORE}",
        says=("expected a lossless store",),
    ),
    Wrong(
        does="no views to time",
        run="ldp bench read --views 0",
        says=("ldp bench read: --views: expected 1 or more",),
    ),
    Wrong(
        does="a store to time that is nowhere",
        run="ldp bench read --store nowhere",
        says=("expected a store at",),
    ),
    Wrong(
        does="a repair by another teacher",
        edit=both(lambda f: first_shard(f).unlink(), lambda f: shutil.copy(f / STUDENT, f / WEIGHTS)),
        run="ldp store repair",
        says=("teacher.weights",),
    ),
    Wrong(
        does="a recipe that nobody knows",
        edit=written("recipes/good.yaml", "name: x\n"),
        run="ldp recipe best",
        says=("ldp recipe: expected one of good, but got 'best'",),
    ),
    Wrong(
        does="a recipe that is not whole",
        edit=written("recipes/good.yaml", "name: x\n"),
        run="ldp recipe good",
        says=("recipes/good.yaml: expected a section 'prepare_data'",),
    ),
    Wrong(
        does="a recipe that is no YAML",
        edit=written("recipes/good.yaml", "["),
        run="ldp recipe good",
        says=("recipes/good.yaml: expected YAML",),
    ),
    Wrong(
        does="a recipe over edited parameters",
        edit=both(
            lambda f: [(f / "recipes").mkdir(), shutil.copy(f / "params.yaml", f / "recipes/good.yaml")],
            params("name", to="mine"),
        ),
        run="ldp recipe good",
        says=("params.yaml has edits that are neither committed nor a recipe", "--force"),
    ),
]

WRONGS = [*ANNOTATIONS, *PLACES, *IMAGES, *PARAMS, *DETECTORS, *STORES, *RESULTS, *MACHINE, *COMMANDS]


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.does)
def test_one_clear_line_and_nothing_is_lost(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: Wrong
) -> None:
    wrong.edit(own_project)
    for name, value in wrong.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    before = files_below(own_project)
    ended = call(wrong.run)
    assert ended.code == wrong.code
    assert bool(ended.error) == (wrong.code == 1)
    if ended.error:
        assert ended.error.startswith("error: ")
        assert "\n" not in ended.error
        assert len(ended.error) < 1000
    for part in wrong.says:
        assert part in ended.error
    assert "Traceback" not in capsys.readouterr().err
    after = files_below(own_project)
    # Work that a run has finished before it fails may be added to scratch/, and nothing else anywhere.
    added = {name for name in after.keys() - before.keys() if not name.startswith("scratch/")}
    assert not added
    assert {name: after.get(name) for name in before} == before


def test_a_file_that_would_run_code_does_not(own_project: Path) -> None:
    """In whatever place it is offered; the same file does run its code where it is unpickled."""
    for path in ("a.pth", "a.safetensors", str(STUDENT)):
        malicious(path)(own_project)
    malicious_raw("raw.pth")(own_project)
    take_weights("a.safetensors")(own_project)
    for command in (
        "ldp teacher import a.pth",
        "ldp teacher import raw.pth",
        TEACHER,
        "evaluate ld",
        "report",
    ):
        assert call(command).code == 1
    assert not Path("code-ran").exists()
    pickle.loads(Path("raw.pth").read_bytes())
    assert Path("code-ran").exists()


def test_boxes_without_a_size_or_outside_the_image_are_legal_and_not_trained_on(own_project: Path) -> None:
    """As in mmdetection; COCO itself has them. With them in both splits, every stage still runs."""
    before = read_manifest(FOLDER.manifest("train"))
    boxes = [[5, 5, 0, 9], [5, 5, 9, -3], [5, 5, 0.5, 9], [-50, 5, 9, 9], [900, 5, 9, 9], [5, 5, -4, -4]]
    for path in (TRAIN, VAL):
        content = json.loads(path.read_text())
        record = content["images"][0]["id"]
        content["annotations"] += [
            {"id": 9000 + number, "image_id": record, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            for number, box in enumerate(boxes)
        ]
        path.write_text(json.dumps(content))
    for stage in (DATA, TEACHER, "evaluate teacher", CACHE):
        assert call(stage).code == 0
    after = read_manifest(FOLDER.manifest("train"))
    assert len(after.images[0].annotations) == len(before.images[0].annotations) + len(boxes)
    old, new = (training_boxes(manifest.images[0], manifest.labels) for manifest in (before, after))
    np.testing.assert_array_equal(old.boxes_xyxy, new.boxes_xyxy)
    np.testing.assert_array_equal(old.labels, new.labels)


def test_a_disk_without_room_is_named_and_the_old_outputs_stay(own_project: Path) -> None:
    """A limit on the size of a file stands in for the disk's end: of weights, of JSON, of the page."""
    before = files_below(own_project)
    for stage, output in {
        TEACHER: "teacher.safetensors",
        "train_student ld": "student.safetensors",
        "evaluate ld": "detections.json",
        "report": "index.html",
        DATA: "train.json",
    }.items():
        with no_file_above(1000):
            ended = call(stage)
        assert ended.code == 1
        assert f"{output} could not be written: File too large; make room there" in ended.error
        changed = [name for name, content in files_below(own_project).items() if before[name] != content]
        assert not [name for name in changed if not name.endswith("timing.json")]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As `ulimit -f`; Python ignores the signal that goes with it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_store_that_may_only_be_read_is_read(own_project: Path) -> None:
    paths = [FOLDER.store, *FOLDER.store.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for command in (
            "train_student ld",
            "verify_cache",
            "ldp store info",
            "ldp store verify",
            "ldp store show 1",
        ):
            assert call(command).code == 0
    finally:
        for path in paths:
            path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(own_project: Path) -> None:
    FOLDER.metrics("ld").parent.chmod(0o555)
    before = files_below(own_project)
    ended = call("evaluate ld")
    FOLDER.metrics("ld").parent.chmod(0o755)
    assert ended == Ended(code=1, error=ended.error)
    assert "metrics/ld.json could not be written: Permission denied" in ended.error
    assert files_below(own_project) == before


def test_bad_images_leave_the_finished_partitions_and_the_next_run_uses_them(own_project: Path) -> None:
    """The teacher had finished all partitions but one when an image proved bad: mended, only that one runs."""
    store = files_below(own_project / STORE)
    good = LAST_IMAGE.read_bytes()
    LAST_IMAGE.write_bytes(good[:900])
    assert call(CACHE).code == 1
    LAST_IMAGE.write_bytes(good)
    assert call(CACHE).code == 0
    assert json.loads(FOLDER.cache_timing.read_text())["partitions"] == [UNFINISHED]
    assert files_below(own_project / STORE) == store
