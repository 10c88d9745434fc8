"""COCO detection annotations: read, checked, and reduced to what a detector needs."""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import DatasetError, short_repr
from pipeline.views.image_table import ImageRows, ImageTable
from pipeline.views.json_rows import read_blocks, read_json
from pipeline.views.manifest import Category, Manifest

Row = dict[str, Any]

LARGEST_ID = 2**63 - 1
"""Of the int64 that ids are stored in."""

MOST_PX = 1e9
"""No box lies farther from its image; beyond 1e38 float32 has no numbers."""


def read_coco(annotations: Path, root: str, folder: str) -> Manifest:
    """Read ``instances_*.json`` of a dataset at ``root`` whose images lie in ``root/folder``.

    Boxes are kept as they are annotated; which images and boxes are trained on is decided later.

    Raises:
        DatasetError: not COCO detection JSON; an id is used twice; a reference leads nowhere; a number is
            not finite; an image has no size; a file name leaves the folder.
    """
    rows, digest = _Rows(annotations), hashlib.sha256()
    content = _parse(annotations, rows, digest)
    for section in ("categories", "images", "annotations"):
        if not isinstance(content.get(section), list):
            raise DatasetError(
                f"{annotations}: expected COCO detection JSON with a list {section!r}, but there is none"
            )
    images = rows.images.table()
    _require_consistent(images, rows.categories, annotations)
    return Manifest(
        root=root,
        folder=folder,
        annotations_sha256=digest.hexdigest(),
        categories=tuple(sorted(rows.categories, key=lambda category: category.category_id)),
        images=images,
    )


_CATEGORY = {"id": int, "name": str}
_IMAGE = {"id": int, "file_name": str, "height": int, "width": int}
_ANNOTATION = {"id": int, "image_id": int, "category_id": int, "bbox": list}


class _Rows:
    """What has been read of a file, row by row; each row is checked and becomes a few numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.categories: list[Category] = []
        self.images = ImageRows()

    def add_category(self, row: Any) -> None:
        _require_keys(row, _CATEGORY, self.path, "categories", len(self.categories))
        self.categories.append(Category(category_id=row["id"], name=row["name"]))

    def add_image(self, row: Any) -> None:
        _require_keys(row, _IMAGE, self.path, "images", self.images.images)
        name = _safe_name(row["file_name"], self.path)
        self.images.add_image(row["id"], name, *(_side(row, key, self.path) for key in ("height", "width")))

    def add_annotation(self, row: Any) -> None:
        # Outlines are not looked at, and gone with the row.
        _require_keys(row, _ANNOTATION, self.path, "annotations", self.images.annotations)
        box, area = _box_and_area(row, self.path)
        ids = (row["image_id"], row["id"], row["category_id"])
        self.images.add_annotation(*ids, *box, area, bool(row.get("iscrowd", 0)))


def _parse(path: Path, rows: _Rows, digest: "hashlib._Hash") -> Row:
    """Read a file once: its rows, its hash, and what else it holds."""
    takers = {"categories": rows.add_category, "images": rows.add_image, "annotations": rows.add_annotation}
    try:
        with path.open("rb") as file:
            content = read_json(_hashed(read_blocks(file), digest), takers)
    except OSError as error:
        raise DatasetError(
            f"{path}: expected an annotation file, but it cannot be read ({error.strerror})"
        ) from error
    # A list in a list in a list ... ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected COCO detection JSON, but it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected COCO detection JSON, but got a {type(content).__name__}")
    return content


def _hashed(blocks: Iterable[bytes], digest: "hashlib._Hash") -> Iterator[bytes]:
    for block in blocks:
        digest.update(block)
        yield block


def _require_keys(row: Any, required: dict[str, type], path: Path, section: str, index: int) -> None:
    """A row has the required keys of the required types."""
    for key, kind in required.items():
        got = row.get(key) if isinstance(row, dict) else row
        if not isinstance(row, dict) or not _is_of(kind, got):
            raise DatasetError(
                f"{path}: {section}[{index}].{key}: expected {kind.__name__}, but got {short_repr(got)}"
            )


def _is_of(kind: type, value: object) -> bool:
    """``value`` is of a type; no truth value is an integer, and none is longer than arrays can hold."""
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_ID
    return isinstance(value, kind)


def _side(row: Row, key: str, path: Path) -> int:
    side: int = row[key]
    if not 1 <= side <= MOST_PX:
        raise DatasetError(
            f"{path}: image {row['id']}: expected {key} of 1 to {MOST_PX:.0e} px, but got {side}"
        )
    return side


def _box_and_area(row: Row, path: Path) -> tuple[list[float], float]:
    box = row["bbox"]
    if len(box) != 4 or not all(_is_number(value) and abs(value) <= MOST_PX for value in box):
        raise DatasetError(
            f"{path}: annotation {row['id']}: expected bbox as 4 finite numbers of at most {MOST_PX:.0e}, "
            f"but got {short_repr(box)}"
        )
    area = row.get("area", float(box[2]) * float(box[3]))
    if not _is_number(area):
        raise DatasetError(
            f"{path}: annotation {row['id']}: expected area as a finite number, but got {short_repr(area)}"
        )
    return box, area


def _is_number(value: object) -> bool:
    return _is_of(int, value) or (isinstance(value, float) and math.isfinite(value))


def _require_consistent(images: ImageTable, categories: list[Category], path: Path) -> None:
    """Ids are there once, and annotations refer to what there is."""
    annotations = images.annotations
    category_ids = np.asarray([category.category_id for category in categories], np.int64)
    _require_unique(category_ids, "category", path)
    _require_unique(annotations["annotation_id"], "annotation", path)
    _require_known(annotations, "image_id", images.image_id, path, "images")
    _require_known(annotations, "category_id", category_ids, path, "categories")
    _require_unique(images.image_id, "image", path)


def _require_known(
    annotations: NDArray[np.void], column: str, known: NDArray[np.int64], path: Path, section: str
) -> None:
    lost = annotations[~np.isin(annotations[column], known)]
    if len(lost):
        first = lost[lost["annotation_id"].argmin()]
        raise DatasetError(
            f"{path}: annotation {first['annotation_id']}: {column} {first[column]} is not in {section}"
        )


def _require_unique(ids: NDArray[np.int64], what: str, path: Path) -> None:
    values, counts = np.unique(ids, return_counts=True)
    twice = values[counts > 1]
    if len(twice):
        raise DatasetError(f"{path}: {what} id {twice[0]} is used twice")


def _safe_name(file_name: str, path: Path) -> str:
    """Refuse names that would leave the image folder."""
    name = PurePosixPath(file_name)
    unsafe = name.is_absolute() or ".." in name.parts or not name.parts
    if unsafe or "\\" in file_name or "\0" in file_name:
        raise DatasetError(
            f"{path}: expected file_name as a path inside the image folder, but got {short_repr(file_name)}"
        )
    return file_name


def require_images(manifest: Manifest) -> None:
    """Refuse a dataset whose images are not all there, inside their folder.

    The folder itself may be a link, as the one that holds it; no file or folder in it may lead out of it.

    Raises:
        DatasetError: Names the first image.
    """
    folder = os.path.realpath(Path(manifest.root) / manifest.folder)
    for record in manifest.images:
        path = manifest.image_path(record)
        if not path.is_file():
            raise DatasetError(f"{path}: expected an image that the annotations name, but there is none")
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(folder):
            raise DatasetError(
                f"{path}: expected an image inside {manifest.folder}, but got a link to {target}; "
                "link the whole folder, or put the file itself there"
            )
