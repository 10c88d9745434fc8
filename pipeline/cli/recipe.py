"""``ldp recipe``: list the recipes, let DVC know one, make a new one, check one from end to end."""

import argparse
import os
import re
import shutil
import sys
from io import StringIO
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from pipeline.cli.options import RECIPE, argument, command
from pipeline.cli.params import check_machine, check_params
from pipeline.core.config import PARAMS, read_sections
from pipeline.core.errors import ConfigError, DatasetError
from pipeline.core.files import write_atomically
from pipeline.core.paths import NAME, RECIPES, SPLITS, STAGES, find_recipe, has_stages, recipe_files
from pipeline.core.tables import align
from pipeline.datasets.coco import read_coco


@command()
def recipe_command(_arguments: argparse.Namespace) -> None:
    """Lists the recipes; an action lets DVC know one, makes a new one, or checks one from end to end."""
    paths = [path for path in recipe_files() if path.is_file()]
    comments = (re.match("# ?(.*)", path.read_text()) for path in paths)
    names = (str(read_sections(path).get("name")) for path in paths)
    rows = [(name, line[1] if line else "") for name, line in zip(names, comments, strict=True)]
    sys.stdout.write(align(rows))


@command(RECIPE)
def add_command(arguments: argparse.Namespace) -> None:
    """Lets DVC know a recipe, by a copy of dvc.yaml beside its parameters."""
    path = find_recipe(arguments.recipe)
    if not has_stages(path.parent):
        # A copy: DVC reads a symbolic link of an older commit as the text that git keeps of it.
        shutil.copyfile(STAGES, path.parent / STAGES)
    sys.stdout.write(f"{path.parent / STAGES}: DVC knows this recipe; run it with {_command(path)}\n")


@command(RECIPE)
def check_command(arguments: argparse.Namespace) -> None:
    """Checks a recipe, its images and its teacher before anything runs."""
    path = find_recipe(arguments.recipe)
    recipe = check_params(path)
    check_machine(recipe)
    first = "" if has_stages(path.parent) else f"`ldp recipe add {path.parent.name}` and "
    students = ", ".join(recipe.students)
    sys.stdout.write(f"{path}: valid; students {students}; run it with {first}{_command(path)}\n")


@command(
    argument("name", metavar="NAME"),
    argument("--from", dest="source", required=True, metavar="RECIPE|FOLDER", help="FOLDER: of a dataset"),
)
def new_command(arguments: argparse.Namespace) -> None:
    """Makes recipes/NAME from another recipe, or for a folder in COCO's layout."""
    name, folder = arguments.name, RECIPES / arguments.name
    if not NAME.fullmatch(name):
        raise ConfigError(f"ldp recipe: expected a name of letters, digits, _ and -, but got {name!r}")
    if os.path.lexists(folder):
        raise ConfigError(f"{folder}: expected a new name; an existing recipe is never overwritten")
    is_dataset = Path(arguments.source, "annotations").is_dir()
    text, path = find_recipe("coco_sample" if is_dataset else arguments.source).read_text(), folder / PARAMS
    for key, value in (("name", name), ("root", "../.."), ("file", path)):
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    if is_dataset:
        text = _for_dataset(text, Path(arguments.source))
    write_atomically(path, text.encode())
    shutil.copyfile(STAGES, folder / STAGES)
    sys.stdout.write(f"{path} is yours to edit; then `ldp recipe check {name}` and {_command(path)}\n")


def _for_dataset(text: str, root: Path) -> str:
    """The text of the recipe ``coco_sample`` with a dataset's files, classes, scale and object sizes."""
    yaml, changed = YAML(), StringIO()  # as a person wrote it, with comments
    yaml.width = 4096  # nor is a line broken that a person did not break
    recipe = yaml.load(text.replace(text.partition("\n")[0], f"# The images of {root}.", 1))
    sections = ("prepare_data", "prepare_teacher", "cache_teacher", "student")
    data, teacher, cache, student = (recipe[section] for section in sections)
    coco = data["coco"]
    # A queued experiment runs in another folder, from which `..` is elsewhere.
    data["source"] = coco["root"] = os.path.abspath(root) if ".." in root.parts else str(root)  # noqa: PTH100
    for split in SPLITS:
        coco[split]["annotations"] = _only(root, f"annotations/instances_{split}*.json")
        coco[split]["images"] = _only(root, f"{split}*")
    train = read_coco(root / coco["train"]["annotations"], str(root), coco["train"]["images"])
    if not len(objects := train.images.annotations):
        raise DatasetError(f"{root}: expected objects to train on, but there are none")
    side = int(np.median(train.images.size_hw.max(axis=1)))
    edges = np.quantile(objects["area"] ** 0.5, [1 / 3, 2 / 3]).round().astype(int).tolist()
    trainable = len(np.unique(objects["image_id"]))
    for section in (teacher, student):
        section["detector"]["num_classes"] = len(train.categories)
        settings = section["train"]
        settings["batch_size"] = size = min(settings["batch_size"], trainable)
        steps = settings["epochs"] * (trainable // size)
        settings["warmup_steps"] = min(settings["warmup_steps"], steps // 4)
    for section in (teacher, cache):
        section["views"]["scales"][0][:] = [side, side]
    cache["batch_size"] = min(cache["batch_size"], trainable)
    recipe["evaluate"]["scale"] = [side, side]
    if 0 < edges[0] < edges[1]:
        recipe["evaluate"]["area_edges"] = edges
    yaml.dump(recipe, changed)
    return changed.getvalue()


def _only(root: Path, pattern: str) -> str:
    """The one path below ``root`` that matches."""
    matches = [str(path.relative_to(root)) for path in sorted(root.glob(pattern))]
    if len(matches) != 1:
        raise DatasetError(f"{root}: expected one {pattern} (COCO's layout), but got {matches or 'none'}")
    return matches[0]


def _command(path: Path) -> str:
    return "`dvc repro`" if path == PARAMS else f"`dvc repro {path.parent / STAGES}`"
