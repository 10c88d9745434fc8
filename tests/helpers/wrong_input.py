"""What a user may do wrong to a project, and what must come of it."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from blank import blank_pictures
from finished import FOLDER, call, files_below
from PIL import Image, ImageChops
from project import edit_params, edited_json
from safetensors.torch import load_file, save_file

from pipeline.core import cluster
from recipes import DATASET, Params, given_teacher, set_value

TRAIN = DATASET / "annotations/instances_train.json"
VAL = DATASET / "annotations/instances_val.json"
LAST_IMAGE = DATASET / "train/000000000008.bmp"
"""Of the partition that is not finished."""
VAL_IMAGE = DATASET / "val/000001000001.bmp"

MAX_CHARACTERS = 1000
"""Of a message."""

STORE, WEIGHTS = FOLDER.store, FOLDER.teacher_weights
STUDENT = FOLDER.student_weights("ld")
DATA, TEACHER, CACHE = "prepare_data", "prepare_teacher", "cache_teacher"

Edit = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Something that a user does wrong, and what comes of it."""

    edit: Edit
    environment: dict[str, str]
    run: str
    code: int
    says: tuple[str, ...]

    def __str__(self) -> str:
        return ": ".join([self.run, *self.says[:1]])


def wrong(
    run: str,
    *says: str,
    edit: Edit = lambda _folder: None,
    environment: dict[str, str] | None = None,
    code: int = 1,
) -> Wrong:
    """A row of a table of wrong input.

    Args:
        run: The stage, or the command of ``ldp``.
        says: Parts of the one line of error.
        edit: A change of the project, in which everything had run before.
        environment: Variables that are set.
        code: The exit code: 2 from argparse, which prints how it is used; 1 with one line of ours.
    """
    return Wrong(edit=edit, environment=environment or {}, run=run, code=code, says=says)


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


def spoiled(path: Path, how: str) -> Edit:
    """A file is removed (``-``), cut to so many bytes (``:20``), or has another content."""
    if how == "-":
        return removed(path)
    return cut(path, int(how[1:])) if how.startswith(":") else written(path, how)


def coco(*keys: str | int, to: Any, path: Path = TRAIN) -> Edit:
    """Set one value of an annotation file."""

    def edit(folder: Path) -> None:
        with edited_json(folder / path) as content:
            set_value(content, keys, to)

    return edit


def each(section: str, **changes: Any) -> Edit:
    """Set values in every row of a section of the annotations."""

    def edit(folder: Path) -> None:
        with edited_json(folder / TRAIN) as content:
            for row in content[section]:
                row.update(changes)

    return edit


def boxes(change: Callable[[list[float]], list[float]]) -> Edit:
    """Write every box in another way."""

    def edit(folder: Path) -> None:
        with edited_json(folder / TRAIN) as content:
            for row in content["annotations"]:
                row["bbox"] = change(row["bbox"])

    return edit


def inverted(old: Image.Image) -> Image.Image:
    """Of the same size and name."""
    return ImageChops.invert(old.convert("RGB"))


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
    return partial(edit_params, edit=lambda values: given_teacher(values, source))


def both(*edits: Edit) -> Edit:
    return lambda folder: [edit(folder) for edit in edits]


def spoil_weight(path: Path, value: float, key: str = "bbox_head.gfl_reg.bias") -> Edit:
    """A weight has other values."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / path)
        tensors[key].fill_(value)
        save_file(tensors, folder / path)

    return edit


def first_shard(folder: Path) -> Path:
    return folder / FOLDER.store / "points/edge_codes/c/0/0"


def require_one_clear_line(row: Wrong, folder: Path) -> None:
    """Do it in a project in which everything had run, and see what comes of it."""
    with blank_pictures(), pytest.MonkeyPatch.context() as patch:
        row.edit(folder)
        for name, value in row.environment.items():
            patch.setenv(name, value)
        patch.setattr(cluster, "CONNECT_SECONDS", 1)
        before = files_below(folder)
        ended = call(row.run)
    assert ended.code == row.code
    _require_clear(ended.error, row)
    after = files_below(folder)
    # Work that a run has finished before it fails may be added to scratch/, and nothing else anywhere.
    assert not [name for name in after.keys() - before.keys() if not name.startswith("scratch/")]
    assert {name: after.get(name) for name in before} == before


def _require_clear(error: str, row: Wrong) -> None:
    assert error.startswith("error: ") == (row.code == 1)
    assert "\n" not in error
    assert len(error) < MAX_CHARACTERS
    for part in row.says:
        assert part in error
