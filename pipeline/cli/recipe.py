"""``ldp recipe``: list the recipes, let DVC know one, make a new one, check one from end to end."""

import argparse
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from pipeline.cli.options import RECIPE, argument, command
from pipeline.cli.params import check_machine, check_params
from pipeline.core.config import PARAMS, read_sections
from pipeline.core.errors import ConfigError, DatasetError
from pipeline.core.files import write_atomically
from pipeline.core.paths import NAME, RECIPES, STAGES, find_recipe, has_stages, recipe_files
from pipeline.core.tables import align

COCO_BASE = "coco_sample"
"""A new recipe for one's own images starts as this one."""
ANNOTATIONS = {split: (f"annotations/instances_{split}*.json", f"{split}*") for split in ("train", "val")}
"""Where COCO's layout has a split's annotations and images."""
COCO_AREAS = [32, 96]


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
    argument(
        "--from",
        dest="source",
        required=True,
        metavar="RECIPE|FOLDER",
        help="a recipe, or a dataset's folder",
    ),
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
    """Let DVC find the stages of the recipe in a folder; what stands there already is never overwritten.

    Raises:
        ConfigError: Other stages stand there.
    """
    if not has_stages(folder):
        # A copy: DVC reads a symbolic link of an older commit as the text that git keeps of it.
        shutil.copyfile(STAGES, folder / STAGES)


class _Image(msgspec.Struct):
    height: int
    width: int


class _Object(msgspec.Struct):
    image_id: int
    area: float = 0.0


class _Annotations(msgspec.Struct):
    """What a recipe is filled in from; outlines are skipped."""

    categories: list[Any]
    images: list[_Image]
    annotations: list[_Object]


def _for_dataset(text: str, root: Path) -> str:
    """The text of :data:`COCO_BASE` with a dataset's files, classes, scale and object sizes."""
    files = {split: [_only(root, each) for each in patterns] for split, patterns in ANNOTATIONS.items()}
    annotations = root / files["train"][0]
    try:
        content = msgspec.json.decode(annotations.read_bytes(), type=_Annotations)
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{annotations}: expected COCO annotations, but {error}") from error
    if not content.images or not content.annotations:
        raise DatasetError(f"{root}: expected images and annotations to train on, but there are none")
    sides = sorted(max(image.height, image.width) for image in content.images)
    scale = [sides[len(sides) // 2]] * 2
    areas = sorted(row.area**0.5 for row in content.annotations)
    thirds = [round(areas[len(areas) * third // 3]) for third in (1, 2)]
    edges = thirds if 0 < thirds[0] < thirds[1] else COCO_AREAS
    # A queued experiment runs in another folder, from which `..` is elsewhere.
    place = os.path.abspath(root) if ".." in root.parts else str(root)  # noqa: PTH100
    text = text.replace("datasets/coco-sample", place).replace("[[320, 320]]", f"[{scale}]")
    trainable = len({row.image_id for row in content.annotations})
    batch, warmup, epochs = (
        int(re.search(rf"{key}: (\d+)", text)[1])  # type: ignore[index]
        for key in ("batch_size", "warmup_steps", "epochs")
    )
    batch = min(batch, trainable)
    values = {
        r"batch_size: \d+": f"batch_size: {batch}",
        r"warmup_steps: \d+": f"warmup_steps: {min(warmup, epochs * (trainable // batch) // 4)}",
        r"\A# .*": f"# The images of {root}.",
        r"num_classes: \d+": f"num_classes: {len(content.categories)}",
        "^evaluate: .*": f"evaluate: {{scale: {scale}, area_edges: {edges}}}",
    }
    for split, (annotated, images) in files.items():
        values[f"^    {split}: .*"] = f"    {split}: {{annotations: {annotated}, images: {images}}}"
    for pattern, value in values.items():
        text = re.sub(pattern, value, text, flags=re.MULTILINE)
    return text


def _only(root: Path, pattern: str) -> str:
    """The one path below ``root`` that matches."""
    matches = sorted(root.glob(pattern))
    if len(matches) != 1:
        names = [str(path) for path in matches]
        raise DatasetError(f"{root}: expected one {pattern} (COCO's layout), but got {names or 'none'}")
    return str(matches[0].relative_to(root))


def _command(path: Path) -> str:
    return "`dvc repro`" if path == PARAMS else f"`dvc repro {path.parent / STAGES}`"
