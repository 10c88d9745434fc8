"""COCO detection annotations: read, checked, and reduced to what a detector needs."""

import hashlib
import json
import math
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.manifest import Annotation, Category, ImageRecord, Manifest
from pipeline.errors import DatasetError

Row = dict[str, Any]


def read_coco(annotations: Path, root: str, folder: str) -> Manifest:
    """Read ``instances_*.json`` of a dataset at ``root`` whose images lie in ``root/folder``.

    Boxes are kept as they are annotated; which images and boxes are trained on is decided later.

    Raises:
        DatasetError: not COCO detection JSON; an id is used twice; a reference leads nowhere; a box is
            not finite; a file name leaves the folder.
    """
    raw = _read_bytes(annotations)
    content = _parse(raw, annotations)
    categories = tuple(
        Category(category_id=row["id"], name=row["name"])
        for row in _rows(content, "categories", _CATEGORY, annotations)
    )
    images = _rows(content, "images", _IMAGE, annotations)
    grouped = _group_annotations(content, images, {c.category_id for c in categories}, annotations)
    _require_unique([row["id"] for row in images], "image", annotations)
    records = tuple(
        ImageRecord(
            image_id=row["id"],
            file_name=_safe_name(row["file_name"], annotations),
            height=row["height"],
            width=row["width"],
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
    except ValueError as error:
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
            if not isinstance(row, dict) or not isinstance(row.get(key), kind):
                got = row.get(key) if isinstance(row, dict) else row
                raise DatasetError(
                    f"{path}: {section}[{index}].{key}: expected {kind.__name__}, but got {got!r}"
                )
    return rows


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
    if len(box) != 4 or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        raise DatasetError(
            f"{path}: annotation {row['id']}: expected bbox as 4 finite numbers, but got {box}"
        )
    x, y, width, height = (float(value) for value in box)
    return Annotation(
        annotation_id=row["id"],
        category_id=row["category_id"],
        box_xywh=(x, y, width, height),
        area=float(row.get("area", width * height)),
        iscrowd=bool(row.get("iscrowd", 0)),
    )


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
    if name.is_absolute() or ".." in name.parts or "\\" in file_name or not name.parts:
        raise DatasetError(f"{path}: file_name {file_name!r}: expected a path inside the image folder")
    return file_name
