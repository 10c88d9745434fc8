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

COCO_BASE = "coco_sample"
"""A new recipe for one's own images starts as this one."""
LAYOUT = {
    split: {"annotations": f"annotations/instances_{split}*.json", "images": f"{split}*"} for split in SPLITS
}
"""Where COCO's layout has a split's annotations and images."""
COCO_AREAS = [32, 96]
MAX_WIDTH = 4096
"""No line is broken that a person did not break."""


@command()
def recipe_command(_arguments: argparse.Namespace) -> None:
    """Lists the recipes; an action lets DVC know one, makes a new one, or checks one from end to end."""
    sys.stdout.write(render_recipes())


@command(RECIPE)
def add_command(arguments: argparse.Namespace) -> None:
    """Lets DVC know a recipe, by a copy of dvc.yaml beside its parameters."""
    path = find_recipe(arguments.recipe)
    add_recipe(path.parent)
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
    path = new_recipe(arguments.name, arguments.source)
    sys.stdout.write(
        f"{path} is yours to edit; then `ldp recipe check {arguments.name}` and {_command(path)}\n"
    )


def render_recipes() -> str:
    """A line for each recipe: its name, and what its first comment says."""
    paths = [path for path in recipe_files() if path.is_file()]
    comments = (re.match("# ?(.*)", path.read_text()) for path in paths)
    names = (str(read_sections(path).get("name")) for path in paths)
    return align([(name, line[1] if line else "") for name, line in zip(names, comments, strict=True)])


def new_recipe(name: str, source: str) -> Path:
    """Make ``recipes/NAME`` from another recipe, or from :data:`COCO_BASE` for a dataset's folder.

    Raises:
        ConfigError: The name cannot be one, is taken, or there is no such recipe.
        DatasetError: The folder is not one of a dataset in COCO's layout.
    """
    folder = RECIPES / name
    if not NAME.fullmatch(name):
        raise ConfigError(f"ldp recipe: expected a name of letters, digits, _ and -, but got {name!r}")
    if os.path.lexists(folder):
        raise ConfigError(f"{folder}: expected a new name; an existing recipe is never overwritten")
    is_dataset = Path(source, "annotations").is_dir()
    text = find_recipe(COCO_BASE if is_dataset else source).read_text()
    for key, value in (("name", name), ("root", "../.."), ("file", folder / PARAMS)):
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    if is_dataset:
        text = _for_dataset(text, Path(source))
    folder.mkdir(parents=True)
    add_recipe(folder)
    write_atomically(folder / PARAMS, text.encode())
    return folder / PARAMS


def add_recipe(folder: Path) -> None:
    """Let DVC find the stages of the recipe in a folder; a ``ConfigError`` if others stand there already."""
    if not has_stages(folder):
        # A copy: DVC reads a symbolic link of an older commit as the text that git keeps of it.
        shutil.copyfile(STAGES, folder / STAGES)


def _for_dataset(text: str, root: Path) -> str:
    """The text of :data:`COCO_BASE` with a dataset's files, classes, scale and object sizes."""
    files = {
        split: {key: _only(root, pattern) for key, pattern in patterns.items()}
        for split, patterns in LAYOUT.items()
    }
    train = read_coco(root / files["train"]["annotations"], str(root), files["train"]["images"])
    images, objects = train.images, train.images.annotations
    if not len(images) or not len(objects):
        raise DatasetError(f"{root}: expected images and annotations to train on, but there are none")
    side = int(np.sort(images.size_hw.max(axis=1))[len(images) // 2])
    sizes = np.sort(objects["area"]) ** 0.5
    thirds = [round(float(sizes[len(sizes) * third // 3])) for third in (1, 2)]
    trainable = len(np.unique(objects["image_id"]))
    # A queued experiment runs in another folder, from which `..` is elsewhere.
    place = os.path.abspath(root) if ".." in root.parts else str(root)  # noqa: PTH100
    yaml, changed = YAML(), StringIO()  # as a person wrote it, with comments
    recipe = yaml.load(text.replace(text.partition("\n")[0], f"# The images of {root}.", 1))
    recipe["prepare_data"]["source"] = recipe["prepare_data"]["coco"]["root"] = place
    for split in SPLITS:
        recipe["prepare_data"]["coco"][split].update(files[split])
    for section in (recipe["prepare_teacher"], recipe["student"]):
        section["detector"]["num_classes"] = len(train.categories)
        settings = section["train"]
        settings["batch_size"] = min(settings["batch_size"], trainable)
        steps = settings["epochs"] * (trainable // settings["batch_size"])
        settings["warmup_steps"] = min(settings["warmup_steps"], steps // 4)
    for section in (recipe["prepare_teacher"], recipe["cache_teacher"]):
        section["views"]["scales"][0][:] = [side, side]
    recipe["cache_teacher"]["batch_size"] = min(recipe["cache_teacher"]["batch_size"], trainable)
    edges = thirds if 0 < thirds[0] < thirds[1] else COCO_AREAS
    recipe["evaluate"].update(scale=[side, side], area_edges=edges)
    yaml.width = MAX_WIDTH
    yaml.dump(recipe, changed)
    return changed.getvalue()


def _only(root: Path, pattern: str) -> str:
    """The one path below ``root`` that matches."""
    matches = sorted(root.glob(pattern))
    if len(matches) != 1:
        names = [str(path) for path in matches]
        raise DatasetError(f"{root}: expected one {pattern} (COCO's layout), but got {names or 'none'}")
    return str(matches[0].relative_to(root))


def _command(path: Path) -> str:
    return "`dvc repro`" if path == PARAMS else f"`dvc repro {path.parent / STAGES}`"
