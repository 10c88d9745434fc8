"""What a user may do wrong to a project, in the words of ``e2e/wrong_input.txt``."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageChops
from project import edit_params, edited_json
from safetensors.torch import load_file, save_file

from recipes import DATASET, ROOT, given_teacher, set_value

TRAIN, VAL = (DATASET / f"annotations/instances_{split}.json" for split in ("train", "val"))
LAST_IMAGE = DATASET / "train/000000000008.bmp"
"""Of the partition that is not finished."""


def change(folder: Path, text: str) -> None:
    """Do what one of the patterns of ``CHANGES`` describes; a path may have a ``*``."""
    for pattern, edit in CHANGES.items():
        if match := re.fullmatch(pattern, text):
            edit(folder, *match.groups())
            return
    raise AssertionError(f"no such change: {text}")


def remove(folder: Path, path: str) -> None:
    target = folder / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()


def cut(folder: Path, path: str, size: str) -> None:
    (folder / path).write_bytes((folder / path).read_bytes()[: int(size)])


def write(folder: Path, path: str, content: str) -> None:
    """Put a file with this content, written as in Python, into the place of a file or a folder."""
    target = next(folder.glob(path), folder / path)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.encode().decode("unicode_escape").encode("latin-1"))


def copy(folder: Path, path: str, source: str) -> None:
    """Put a file of the project, or a folder of the tests, into a place."""
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, folder / path, dirs_exist_ok=True)
    else:
        shutil.copy(folder / source, folder / path)


def repaint(folder: Path, path: str, how: str) -> None:
    """Save images in another way; their format is known by their content, not by their name."""
    kind, paint = PAINTED[how]
    for target in folder.glob(path):
        with Image.open(target) as old:
            first, *more = paint(old.convert("RGB"))
        first.save(target, kind, **({"save_all": True, "append_images": more} if more else {}))


PAINTED: dict[str, tuple[str, Callable[[Image.Image], list[Image.Image]]]] = {
    "inverted": ("BMP", lambda old: [ImageChops.invert(old)]),
    "small": ("BMP", lambda old: [old.resize((20, 20))]),
    # 20 KB as a PNG, and 400 million pixels in memory.
    "huge": ("PNG", lambda _: [Image.new("1", (20_000, 20_000))]),
    "moving GIF": ("GIF", lambda old: [old, Image.new("RGB", old.size)]),
    "moving PNG": ("PNG", lambda old: [old, Image.new("RGB", old.size)]),
}


def annotate(folder: Path, split: str, keys: str, value: str) -> None:
    """Set one value of an annotation file."""
    path = tuple(int(key) if key.isdecimal() else key for key in keys.split())
    with edited_json(folder / (TRAIN if split == "train" else VAL)) as content:
        set_value(content, path, json.loads(value))


def edit_rows(folder: Path, section: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change all rows of the training split."""
    with edited_json(folder / TRAIN) as content:
        for row in content[section]:
            row.update(edit(row))


def corners(row: dict[str, Any]) -> dict[str, Any]:
    x, y, width, height = row["bbox"]
    return {"bbox": [x, y, x + width, y + height]}


def set_param(folder: Path, keys: str, value: str) -> None:
    edit_params(folder, lambda values: set_value(values, tuple(keys.split(".")), yaml.safe_load(value)))


def drop_param(folder: Path, keys: str) -> None:
    *path, last = keys.split(".")
    edit_params(folder, lambda values: reduce(getitem, path, values).pop(last))


def take_weights(folder: Path, source: str) -> None:
    """Take given weights instead of training."""
    edit_params(folder, lambda values: given_teacher(values, source))


def fill_weight(folder: Path, key: str, path: str, value: str) -> None:
    tensors = load_file(folder / path)
    tensors[key].fill_(float(value))
    save_file(tensors, folder / path)


CHANGES: dict[str, Callable[..., None]] = {
    "-?": lambda _folder: None,
    r"(\S+) removed": remove,
    r"(\S+) cut to (\d+)": cut,
    r"(\S+) holds ?(.*)": write,
    r"(\S+) is a file": partial(write, content="a file where a folder should be"),
    r"teacher from (\S+)": take_weights,
    r"(\S+) from (\S+)": copy,
    rf"(\S+) ({'|'.join(PAINTED)})": repaint,
    r"train: every (\w+) = (.*)": lambda folder, row, values: edit_rows(
        folder, f"{row}s", lambda _: json.loads(values)
    ),
    r"(train|val): (.+?) = (.*)": annotate,
    "corners": partial(edit_rows, section="annotations", edit=corners),
    r"no (\S+)": drop_param,
    r"weight (\S+) of (\S+) = (\S+)": fill_weight,
    r"(\S+) = (.*)": set_param,
}
