"""COCO detection annotations: read, checked, and reduced to what a detector needs."""

import hashlib
import json
import math
import os
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.manifest import Annotation, Category, ImageRecord, Manifest
from pipeline.errors import DatasetError, shown

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
    raw = _read_bytes(annotations)
    content = _parse(raw, annotations)
    categories = tuple(
        Category(category_id=row["id"], name=row["name"])
        for row in _rows(content, "categories", _CATEGORY, annotations)
    )
    _require_unique([category.category_id for category in categories], "category", annotations)
    images = _rows(content, "images", _IMAGE, annotations)
    grouped = _group_annotations(content, images, {c.category_id for c in categories}, annotations)
    _require_unique([row["id"] for row in images], "image", annotations)
    records = tuple(
        ImageRecord(
            image_id=row["id"],
            file_name=_safe_name(row["file_name"], annotations),
            height=_side(row, "height", annotations),
            width=_side(row, "width", annotations),
            annotations=tuple(grouped[row["id"]]),
        )
        for row in sorted(images, key=lambda row: int(row["id"]))
    )
    return Manifest(
        root=root,
        folder=folder,
        annotations_sha256=hashlib.sha256(raw).hexdigest(),
        categories=tuple(sorted(categories, key=lambda category: category.category_id)),
        images=records,
    )


_CATEGORY = {"id": int, "name": str}
_IMAGE = {"id": int, "file_name": str, "height": int, "width": int}
_ANNOTATION = {"id": int, "image_id": int, "category_id": int, "bbox": list}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"{path}: expected an annotation file, but it cannot be read ({error.strerror})"
        ) from error


def _parse(raw: bytes, path: Path) -> Row:
    try:
        content = json.loads(raw, object_hook=_without_outline)
    # A list in a list in a list ... ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path}: expected COCO detection JSON, but it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: expected COCO detection JSON, but got a {type(content).__name__}")
    return content


def _without_outline(row: Row) -> Row:
    """Outlines are never read, and would be three quarters of what COCO takes of the memory."""
    row.pop("segmentation", None)
    return row


def _rows(content: Row, section: str, required: dict[str, type], path: Path) -> list[Row]:
    """A list of COCO's rows, each with the required keys of the required types."""
    rows = content.get(section)
    if not isinstance(rows, list):
        raise DatasetError(f"{path}: expected COCO detection JSON with a list {section!r}, but there is none")
    for index, row in enumerate(rows):
        for key, kind in required.items():
            got = row.get(key) if isinstance(row, dict) else row
            if not isinstance(row, dict) or not _is_of(kind, got):
                raise DatasetError(
                    f"{path}: {section}[{index}].{key}: expected {kind.__name__}, but got {shown(got)}"
                )
    return rows


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


def _group_annotations(
    content: Row, images: list[Row], category_ids: set[int], path: Path
) -> dict[int, list[Annotation]]:
    rows = _rows(content, "annotations", _ANNOTATION, path)
    _require_unique([row["id"] for row in rows], "annotation", path)
    image_ids = {row["id"] for row in images}
    grouped: dict[int, list[Annotation]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row["id"])):
        if row["image_id"] not in image_ids:
            raise DatasetError(f"{path}: annotation {row['id']}: image_id {row['image_id']} is not in images")
        if row["category_id"] not in category_ids:
            raise DatasetError(
                f"{path}: annotation {row['id']}: category_id {row['category_id']} is not in categories"
            )
        grouped[row["image_id"]].append(_annotation(row, path))
    return grouped


def _annotation(row: Row, path: Path) -> Annotation:
    box = row["bbox"]
    if len(box) != 4 or not all(_is_number(value) and abs(value) <= MOST_PX for value in box):
        raise DatasetError(
            f"{path}: annotation {row['id']}: expected bbox as 4 finite numbers of at most {MOST_PX:.0e}, "
            f"but got {shown(box)}"
        )
    x, y, width, height = (float(value) for value in box)
    area = row.get("area", width * height)
    if not _is_number(area):
        raise DatasetError(
            f"{path}: annotation {row['id']}: expected area as a finite number, but got {shown(area)}"
        )
    return Annotation(
        annotation_id=row["id"],
        category_id=row["category_id"],
        box_xywh=(x, y, width, height),
        area=float(area),
        iscrowd=bool(row.get("iscrowd", 0)),
    )


def _is_number(value: object) -> bool:
    return _is_of(int, value) or (isinstance(value, float) and math.isfinite(value))


def _require_unique(ids: list[int], what: str, path: Path) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: set[int] = set()
    for value in ids:
        if value in seen:
            raise DatasetError(f"{path}: {what} id {value} is used twice")
        seen.add(value)


def _safe_name(file_name: str, path: Path) -> str:
    """Refuse names that would leave the image folder."""
    name = PurePosixPath(file_name)
    unsafe = name.is_absolute() or ".." in name.parts or not name.parts
    if unsafe or "\\" in file_name or "\0" in file_name:
        raise DatasetError(
            f"{path}: expected file_name as a path inside the image folder, but got {shown(file_name)}"
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
